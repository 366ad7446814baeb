// Keys of a job file that had another name. Their old names are read wherever keys are: in job files, in --set, and in
// the jobs that runs and checkpoints keep.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

namespace ratplus::config {

struct OldKey {
  std::string_view old_path;
  std::string_view path;
};

inline constexpr std::array old_keys = {
    OldKey{"data.window", "data.sequence_length"}, OldKey{"checkpoint.dir", "checkpoint.directory"},
    OldKey{"checkpoint.dtype", "checkpoint.export"},
    OldKey{"model.recurrence", "model.mixer"},  // true: "ratplus"; false: "gated_attention"
};

/// The present name of "section.key": another one where the given name is an old one.
constexpr std::string_view present_key(std::string_view path) {
  const auto found = std::ranges::find(old_keys, path, &OldKey::old_path);
  return found == old_keys.end() ? path : found->path;
}

}  // namespace ratplus::config
