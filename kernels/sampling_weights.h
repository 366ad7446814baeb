// The arithmetic of operation::SampleTokens that both backends share: weights as whole numbers, and logits as keys whose
// order is theirs.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define RATPLUS_HOST_DEVICE __host__ __device__
#else
#define RATPLUS_HOST_DEVICE
#endif

namespace ratplus {

/// A weight of [0, 1] in units of 2^-40.
RATPLUS_HOST_DEVICE inline std::uint64_t weight_units(float weight) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(weight * 0x1p40f));
}

/// A larger number for a larger float, from the float's bits; 0 and -0 have one key. Not for NaN.
RATPLUS_HOST_DEVICE inline std::uint32_t order_key(std::uint32_t bits) {
  if (bits == 0x80000000U) bits = 0;
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

/// The least whole number that is at least top_p of the total, and at least 1.
RATPLUS_HOST_DEVICE inline std::uint64_t units_of_share(float top_p, std::uint64_t total) {
  const double exact = static_cast<double>(top_p) * static_cast<double>(total);
  auto units = static_cast<std::uint64_t>(exact);
  if (static_cast<double>(units) < exact) ++units;
  return units == 0 ? 1 : units;
}

/// The running sum that the drawn token is the first to exceed; below the total, which is positive.
RATPLUS_HOST_DEVICE inline std::uint64_t drawn_units(float uniform, std::uint64_t total) {
  const auto units = static_cast<std::uint64_t>(static_cast<double>(uniform) * static_cast<double>(total));
  return units < total ? units : total - 1;
}

}  // namespace ratplus
