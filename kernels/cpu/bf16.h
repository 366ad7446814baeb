// bfloat16: the upper half of a float32.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/tensor.h"

namespace ratplus::cpu {

inline float to_float(bf16_t x) {
  return std::bit_cast<float>(std::uint32_t{x.bits} << 16);
}

/// To the nearest, ties to even; NaN stays NaN.
inline bf16_t to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  return {static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40 : rounded >> 16)};
}

}  // namespace ratplus::cpu
