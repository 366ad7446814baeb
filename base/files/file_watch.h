// FileWatch: notices that a file was changed since it was first read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace ratplus {

/// Watches one file. The earlier and later reads of a run must belong together, also where the file was closed and
/// opened again in between.
class FileWatch {
 public:
  /// The first call remembers the file's size and time of change; another throws Error naming the file if they are not
  /// the same. A file that is gone is left to whoever opens it.
  void check(const std::filesystem::path& file);

 private:
  struct State {
    std::int64_t bytes = 0;
    std::int64_t changed = 0;  ///< nanoseconds since 1970
    bool operator==(const State&) const = default;
  };
  std::optional<State> first_;
};

}  // namespace ratplus
