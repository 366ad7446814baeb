// CRC-32C (Castagnoli), the checksum of TensorFlow's record files. (zlib's crc32 is of another polynomial.)
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ratplus::tensorboard {

/// A table by byte value: the polynomial 0x1EDC6F41, its bits reversed.
constexpr std::array<std::uint32_t, 256> crc32c_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    table[byte] = crc;
  }
  return table;
}

constexpr std::uint32_t crc32c(std::string_view bytes) {
  constexpr auto table = crc32c_table();
  std::uint32_t crc = ~0U;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~crc;
}

/// As record files store it: turned by 15 bits and shifted by a constant, so that the checksum of bytes that hold
/// checksums themselves stays a good one.
constexpr std::uint32_t masked_crc32c(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

}  // namespace ratplus::tensorboard
