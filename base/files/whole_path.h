// whole_path: one spelling of a path.
#pragma once

#include <filesystem>

namespace ratplus {

/// `path` from the root, without "." and ".." and a slash at its end. Links stay as they are.
inline std::filesystem::path whole_path(const std::filesystem::path& path) {
  const auto whole = std::filesystem::absolute(path).lexically_normal();
  return whole.has_filename() ? whole : whole.parent_path();
}

}  // namespace ratplus
