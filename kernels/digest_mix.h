// digest_mix: what one element adds to a digest, on either backend.
#pragma once

#include <cstdint>

namespace ratplus {

/// A bijection of 64 bits (the finalizer of SplitMix64; Steele, Lea and Flood, 2014), of an element's index and bits: two
/// values of one element never mix to the same.
#ifdef __CUDACC__
__host__ __device__
#endif
    constexpr std::uint64_t
    digest_mix(std::uint64_t index, std::uint32_t bits) {
  std::uint64_t z = (index << 32 | bits) + 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

}  // namespace ratplus
