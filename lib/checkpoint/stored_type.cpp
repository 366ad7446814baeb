#include "lib/checkpoint/stored_type.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace ratplus::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "files of weights are little-endian");

constexpr std::uint32_t sign_bit = 0x80000000u;
constexpr std::uint32_t infinity_bits = 0x7f800000u;

/// float16 has 5 bits of exponent (bias 15) and 10 of fraction, float32 8 (bias 127) and 23.
float from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | infinity_bits | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal: exact in float32
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

std::uint16_t to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits & sign_bit) >> 16);
  const std::uint32_t magnitude = bits & ~sign_bit;
  if (magnitude > infinity_bits) {  // not a number stays one, its payload cut
    const std::uint32_t payload = (magnitude >> 13) & 0x3ffu;
    return static_cast<std::uint16_t>(sign | 0x7c00u | (payload != 0 ? payload : 1));
  }
  if (magnitude < 0x38800000u) {   // below 2^-14: a multiple of 2^-24, by the rounding of a float32 addition
    constexpr float shift = 0.5f;  // its last place is 2^-24
    const float rounded = std::bit_cast<float>(magnitude) + shift;
    const auto fraction = std::bit_cast<std::uint32_t>(rounded) - std::bit_cast<std::uint32_t>(shift);
    return static_cast<std::uint16_t>(sign | fraction);
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  if (rounded >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 2^16 and more
  return static_cast<std::uint16_t>(sign | (rounded - 0x38000000u) >> 13);
}

float from_bfloat(std::uint16_t high) {
  return std::bit_cast<float>(std::uint32_t{high} << 16);
}

std::uint16_t to_bfloat(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & ~sign_bit) > infinity_bits) {
    const auto high = static_cast<std::uint16_t>(bits >> 16);
    return static_cast<std::uint16_t>((high & 0x7fu) != 0 ? high : high | 1u);
  }
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

template <float (*from)(std::uint16_t)>
void decode_16(const char* bytes, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t element = 0;
    std::memcpy(&element, bytes + 2 * i, 2);
    out[i] = from(element);
  }
}

template <std::uint16_t (*to)(float)>
bool encode_16(std::span<const float> values, char* bytes, std::uint16_t infinity) {
  bool fits = true;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t element = to(values[i]);
    fits &= (element & 0x7fffu) != infinity || std::isinf(values[i]);
    std::memcpy(bytes + 2 * i, &element, 2);
  }
  return fits;
}

}  // namespace

const char* to_string(StoredType type) {
  switch (type) {
    case StoredType::float32:
      return "float32";
    case StoredType::float16:
      return "float16";
    case StoredType::bfloat16:
      return "bfloat16";
  }
  return "";
}

StoredType parse_stored_type(std::string_view text, std::string_view where) {
  if (text == "float32" || text == "f32") return StoredType::float32;
  if (text == "float16" || text == "f16") return StoredType::float16;
  if (text == "bfloat16" || text == "bf16") return StoredType::bfloat16;
  fail("{}: \"{}\" is none of float32, float16, bfloat16", where, text);
}

std::int64_t bytes_of(StoredType type) {
  return type == StoredType::float32 ? 4 : 2;
}

void decode(StoredType type, const char* bytes, std::span<float> out) {
  switch (type) {
    case StoredType::float32:
      if (!out.empty()) std::memcpy(out.data(), bytes, out.size_bytes());
      return;
    case StoredType::float16:
      return decode_16<from_half>(bytes, out);
    case StoredType::bfloat16:
      return decode_16<from_bfloat>(bytes, out);
  }
}

bool encode(StoredType type, std::span<const float> values, char* bytes) {
  switch (type) {
    case StoredType::float32:
      if (!values.empty()) std::memcpy(bytes, values.data(), values.size_bytes());
      return true;
    case StoredType::float16:
      return encode_16<to_half>(values, bytes, 0x7c00);
    case StoredType::bfloat16:
      return encode_16<to_bfloat>(values, bytes, 0x7f80);
  }
  return false;
}

}  // namespace ratplus::checkpoint
