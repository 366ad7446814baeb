// CRC-32 (the polynomial of zip, gzip and zlib): the checksum of checkpoints' files and of records in zip archives.
#pragma once

#include <cstdint>
#include <span>

namespace ratplus {

/// The checksum of what `crc` is the checksum of (0: nothing) followed by `bytes`.
std::uint32_t crc32(std::uint32_t crc, std::span<const char> bytes);
/// The CRC-32 of numbers as little-endian bytes.
std::uint32_t crc32_of(std::uint32_t crc, std::span<const std::int32_t> numbers);
/// Joins checksums: of the bytes of `first`, followed by `bytes` bytes with the checksum `second`.
std::uint32_t combined_crc32(std::uint32_t first, std::uint32_t second, std::int64_t bytes);

}  // namespace ratplus
