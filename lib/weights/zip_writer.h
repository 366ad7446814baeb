// ZipWriter: a zip archive of stored records, as PyTorch writes it: each record's bytes begin at a multiple of 64, and
// sizes and places beyond 32 bits are written as zip64.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/files/byte_file.h"

namespace ratplus::weights {

class ZipWriter {
 public:
  /// Writes to `file`; messages name `shown_as`, what it is to be called.
  ZipWriter(const std::filesystem::path& file, const std::filesystem::path& shown_as);

  /// A record whose `size` bytes follow by write().
  void begin(const std::string& name, std::int64_t size);
  void write(std::string_view bytes);
  /// A whole record.
  void add(const std::string& name, std::string_view bytes);
  /// The archive's directory; nothing can be written after it.
  void finish();

 private:
  struct Record {
    std::string name;
    std::int64_t size = 0;
    std::int64_t header = 0;
    std::uint32_t crc = 0;
  };
  void end_record();

  ByteWriter out_;
  std::vector<Record> records_;
  std::int64_t written_ = 0;  ///< of the last record
};

}  // namespace ratplus::weights
