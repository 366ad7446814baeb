// CRC-32 (the polynomial of zip, gzip and zlib): the checksum of checkpoints' files and of records in zip archives.
#pragma once

#include <cstdint>
#include <span>

namespace ratplus::data {

/// The checksum of what `crc` is the checksum of (0: nothing) followed by `bytes`.
std::uint32_t crc32(std::uint32_t crc, std::span<const char> bytes);

}  // namespace ratplus::data
