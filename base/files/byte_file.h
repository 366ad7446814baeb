// Files of bytes, read at any place and written from front to back, with bounds and failures that name the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files/descriptor.h"
#include "base/files/page_cache.h"

namespace ratplus {

/// A file to read at any place. Its size is that of the moment it was opened.
class ByteReader {
 public:
  /// Throws Error unless it is a regular file that can be read.
  explicit ByteReader(std::filesystem::path file);

  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const { return size_; }
  /// Fills `out` from the bytes at `offset`. Throws Error where the file has not that many.
  void read(std::int64_t offset, std::span<char> out) const;
  std::string read(std::int64_t offset, std::int64_t count) const;
  /// From now on each byte is read once, in the order of the file: it leaves the page cache behind (page_cache.h).
  void expect_one_reading() { once_ = ReadOnce(path_); }

 private:
  std::filesystem::path path_;
  Descriptor file_;
  ReadOnce once_;
  std::int64_t size_ = 0;
};

/// A file written from front to back, through a buffer; what was written may be changed in place.
class ByteWriter {
 public:
  /// What of the file stays in the system's page cache: the part behind the place that is written is dropped
  /// (page_cache.h), or all is kept for a reader to come.
  enum class Pages { dropped, kept };

  /// Replaces a file of this name. Messages name `shown_as`, what the file is to be called.
  ByteWriter(const std::filesystem::path& file, std::filesystem::path shown_as, Pages pages = Pages::dropped);

  /// Bytes so far.
  std::int64_t size() const { return size_; }
  void write(std::string_view bytes);
  /// Zeros up to a multiple of `alignment`.
  void align(std::int64_t alignment);
  /// Other bytes in the place of some that were written.
  void overwrite(std::int64_t offset, std::string_view bytes);
  /// Throws Error if the last bytes cannot be written; a destructor cannot say so, so close what was written.
  void close();

 private:
  void flush();
  void write_through(std::string_view bytes);

  std::filesystem::path shown_;
  Descriptor file_;
  WriteBehind behind_;
  Pages pages_;
  std::vector<char> buffer_;
  std::int64_t size_ = 0;
};

}  // namespace ratplus
