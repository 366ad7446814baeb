// WriteBehind: a large file goes to the disk while it is being written.
#pragma once

#include <fcntl.h>

#include <cstdint>
#include <filesystem>

#include "data/descriptor.h"

namespace ratplus::data {

/// Left to itself, the system holds gigabytes of a file back in memory and makes the sync at its end wait for all of
/// them. A hint: a file system that cannot take it writes as it always does.
class WriteBehind {
 public:
  WriteBehind() = default;
  explicit WriteBehind(const std::filesystem::path& file) : file_(file, O_RDONLY) {}

  /// `bytes` more have been given to the system. Does not wait for the disk, unless its queue is full.
  void wrote(std::int64_t bytes) {
    pending_ += bytes;
    if (pending_ < portion) return;
    pending_ = 0;
#ifdef SYNC_FILE_RANGE_WRITE  // Linux
    ::sync_file_range(file_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
  }

 private:
  static constexpr std::int64_t portion = std::int64_t{64} << 20;

  Descriptor file_;
  std::int64_t pending_ = 0;
};

}  // namespace ratplus::data
