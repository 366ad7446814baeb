// Vec: as many floats as a vector register of the target holds (GCC and Clang vector extension).
#pragma once

#include <cstdint>

namespace ratplus::cpu {

#if defined(__AVX512F__)
inline constexpr std::int64_t vec_width = 16;
#elif defined(__AVX__)
inline constexpr std::int64_t vec_width = 8;
#else
inline constexpr std::int64_t vec_width = 4;
#endif

typedef float Vec __attribute__((vector_size(vec_width * sizeof(float))));
/// The same in memory: at any address that holds floats.
typedef float UnalignedVec
    __attribute__((vector_size(vec_width * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vec load(const float* address) {
  return *reinterpret_cast<const UnalignedVec*>(address);
}
inline void store(float* address, Vec value) {
  *reinterpret_cast<UnalignedVec*>(address) = value;
}

/// Asks for `count` floats ahead of their use. For short rows far apart, which the processor does not
/// foresee.
inline void prefetch(const float* address, std::int64_t count) {
  constexpr std::int64_t line = 16;  // floats
  for (std::int64_t i = 0; i < count; i += line) __builtin_prefetch(address + i, 0, 2);
}

/// Floats of a row of n that is padded to whole vectors.
inline constexpr std::int64_t padded(std::int64_t n) {
  return (n + vec_width - 1) / vec_width * vec_width;
}

}  // namespace ratplus::cpu
