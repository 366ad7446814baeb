// Protobuf's wire format, as far as events need it: a message is a string to which fields are appended.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace ratplus::tensorboard {

class Message {
 public:
  void varint(int field, std::uint64_t value) {
    tag(field, 0);
    append_varint(value);
  }
  void fixed64(int field, double value) {
    tag(field, 1);
    append_little_endian(std::bit_cast<std::uint64_t>(value), 8);
  }
  /// A string, or a message within this one.
  void bytes(int field, std::string_view value) {
    tag(field, 2);
    append_varint(value.size());
    bytes_ += value;
  }
  void fixed32(int field, float value) {
    tag(field, 5);
    append_little_endian(std::bit_cast<std::uint32_t>(value), 4);
  }

  const std::string& encoded() const { return bytes_; }

 private:
  void tag(int field, unsigned type) { append_varint(static_cast<unsigned>(field) << 3 | type); }
  /// Seven bits a byte, the lowest first; the eighth says that more follow.
  void append_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  void append_little_endian(std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes_ += static_cast<char>(value >> (8 * i));
  }

  std::string bytes_;
};

}  // namespace ratplus::tensorboard
