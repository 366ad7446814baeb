// Limits the share of the system's page cache for a file written or read once, from front to back: a few megabytes
// behind the place where it is, instead of all it has.
//
// A checkpoint can be larger than the host's memory. Left to itself, the system holds gigabytes of a file back until
// the sync at its end waits for all of them, and pushes out what other files, such as the training data, have there;
// in a virtual machine the fresh pages by themselves cost more time than the disk. All of this is a hint: a file system
// that cannot take it does as it always does, and what is dropped too early is read again.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/files/descriptor.h"

namespace ratplus {

/// Sends a file to the disk while it is being written, and then drops its pages.
class WriteBehind {
 public:
  WriteBehind() = default;
  /// Messages name `shown_as`, what the file is to be called.
  WriteBehind(const std::filesystem::path& file, std::filesystem::path shown_as);

  /// `bytes` more have been given to the system. Waits for the disk where that is more than a few portions behind.
  /// Throws Error for a failed write, which a later sync would not report again.
  void wrote(std::int64_t bytes);

 private:
  std::filesystem::path shown_;
  Descriptor file_;
  std::int64_t written_ = 0;
  std::int64_t begun_ = 0;    ///< the system has been asked to write up to here
  std::int64_t dropped_ = 0;  ///< up to here it is on the disk
};

/// Has a file read ahead, and drops its pages once they were read. One that is read twice, or by several ranks, is
/// better left to the system.
class ReadOnce {
 public:
  ReadOnce() = default;
  explicit ReadOnce(const std::filesystem::path& file);

  /// [begin, begin + count) was read; what follows comes next.
  void read(std::int64_t begin, std::int64_t count) const;
  /// All of it is dropped: the next read comes from the disk, as far as the system lets.
  void drop_all() const;

 private:
  Descriptor file_;
};

}  // namespace ratplus
