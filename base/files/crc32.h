// CRC-32 (the polynomial of zip, gzip and zlib): the checksum of checkpoints' files and of records in zip archives.
#pragma once

#include <cstdint>
#include <span>

namespace ratplus {

/// The checksum of what `crc` is the checksum of (0: nothing) followed by `bytes`.
std::uint32_t crc32(std::uint32_t crc, std::span<const char> bytes);
/// The same of numbers, as they lie in a little-endian machine's memory.
std::uint32_t crc32_of(std::uint32_t crc, std::span<const std::int32_t> numbers);
/// The checksum of what `first` is the checksum of, followed by `bytes` bytes of which `second` is the checksum.
std::uint32_t combined_crc32(std::uint32_t first, std::uint32_t second, std::int64_t bytes);

}  // namespace ratplus
