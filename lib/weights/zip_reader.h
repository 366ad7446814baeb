// ZipReader: the records of a zip archive (APPNOTE 6.3.9), zip64 included, stored or deflated, read piece by piece.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/files/byte_file.h"

namespace ratplus::weights {

struct ZipEntry {
  std::string name;
  std::int64_t size = 0;         ///< bytes
  std::int64_t stored_size = 0;  ///< bytes in the archive: fewer where they are deflated
  bool deflated = false;
  std::uint32_t crc = 0;  ///< CRC-32 of the bytes; 0: the writer did not compute it
  std::int64_t header = 0;
};

/// Nothing of the archive is believed: every place and size is checked against the file's.
class ZipReader {
 public:
  /// Throws Error naming the file where it is no zip archive, or a damaged one.
  explicit ZipReader(const std::filesystem::path& file);
  ~ZipReader();
  ZipReader(const ZipReader&) = delete;
  ZipReader& operator=(const ZipReader&) = delete;

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<ZipEntry>& entries() const { return entries_; }
  /// Null if there is none of this name.
  const ZipEntry* find(std::string_view name) const;

  /// Bytes [offset, offset + out.size()) of a record. Its checksum is compared once all of it was read in order.
  void read(const ZipEntry& entry, std::int64_t offset, std::span<char> out);
  /// From now on each byte is read once, in the order of the file.
  void expect_one_reading() { file_.expect_one_reading(); }
  /// A whole record of at most `most` bytes.
  std::string read_all(const ZipEntry& entry, std::int64_t most);

 private:
  struct Progress;
  struct Inflater;
  struct Directory {
    std::int64_t offset = 0;
    std::int64_t size = 0;
    std::int64_t entries = 0;
  };

  Directory find_directory() const;
  Directory directory_64(std::int64_t locator) const;
  void read_directory(const Directory& directory);
  std::int64_t data_offset(const ZipEntry& entry) const;
  Progress& progress_of(const ZipEntry& entry);
  void check(const ZipEntry& entry, std::int64_t offset, std::span<const char> bytes);

  ByteReader file_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string, std::size_t> index_;  ///< by name
  std::vector<Progress> progress_;
  std::unique_ptr<Inflater> inflater_;  ///< of the deflated record that was read last
};

}  // namespace ratplus::weights
