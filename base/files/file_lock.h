// FileLock: one process at a time at work in a place, as far as the file system has locks.
#pragma once

#include <filesystem>
#include <utility>

#include "base/files/descriptor.h"

namespace ratplus {

class FileLock {
 public:
  enum class After { keep, remove };

  /// Makes and locks `file`, which stays or goes with the lock. Throws Error naming `place` where another process has
  /// it, or the file where it cannot be written. `who` is that process: "`ratplus prepare`".
  FileLock(const std::filesystem::path& file, const std::filesystem::path& place, const char* who,
           After after = After::keep);
  ~FileLock();
  FileLock(FileLock&& other) noexcept
      : descriptor_(std::move(other.descriptor_)), removed_(std::exchange(other.removed_, {})) {}
  FileLock& operator=(FileLock&&) = delete;

 private:
  Descriptor descriptor_;
  std::filesystem::path removed_;  ///< by the destructor; empty: nothing
};

}  // namespace ratplus
