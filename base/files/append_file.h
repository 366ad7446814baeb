// AppendFile: a file that grows by whole pieces, and outlives a disk without room.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/files/descriptor.h"

namespace ratplus {

/// For logs and metrics beside work that must not end for want of their room: bytes that cannot be written are kept and
/// tried again with the next piece, in order and without a gap. Every piece is handed to the system at once.
class AppendFile {
 public:
  /// Bytes that may wait before add() gives up.
  static constexpr std::size_t most_waiting = std::size_t{64} << 20;

  /// Opens or makes the file. Throws Error naming it. `flags`: of open(2), besides those for appending.
  explicit AppendFile(std::filesystem::path file, int flags = 0);

  /// Throws Error only where more than most_waiting bytes would wait.
  void add(std::string_view piece);
  /// Tries once more to write what waits.
  void retry() { add(""); }
  /// Why bytes wait, with the file's name, their number and the way out; empty where all are written.
  std::string trouble() const;

  const std::filesystem::path& path() const { return file_; }
  int descriptor() const { return descriptor_.get(); }
  /// Whether the open file still has its name: another process may have removed it.
  bool has_name() const { return ratplus::has_name(descriptor_, file_); }

 private:
  std::filesystem::path file_;
  Descriptor descriptor_;
  std::string waiting_;
  int error_ = 0;  ///< errno of the last write, where bytes wait
};

}  // namespace ratplus
