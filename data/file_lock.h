// FileLock: one process at a time at work in a directory, as far as the file system has locks.
#pragma once

#include <filesystem>

namespace ratplus::data {

class FileLock {
 public:
  /// Makes and locks `file`. Throws Error naming `place` where another process has it, or the file where it cannot be
  /// written. `who` is that process: "`ratplus prepare`".
  FileLock(const std::filesystem::path& file, const std::filesystem::path& place, const char* who);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace ratplus::data
