// Elementary functions in float32 as straight-line arithmetic, so that the compiler turns a `#pragma omp
// simd` loop that calls them into vector code of any width. Polynomials are Chebyshev interpolants of the
// exact functions.
#pragma once

#include <bit>
#include <cstdint>

namespace ratplus::cpu {

/// 1.5 2^23: adding it to |x| < 2^22 rounds x to the nearest integer, which is then in the low bits.
inline constexpr float round_magic = 12582912.0f;

/// 2^n, for n the integer that `rounded` = n + round_magic holds; n in [-126, 127].
inline float power_of_two(float rounded) {
  const std::int32_t n = std::bit_cast<std::int32_t>(rounded) - std::bit_cast<std::int32_t>(round_magic);
  return std::bit_cast<float>((n + 127) << 23);
}

/// 2^x; 0 below x = -126 (also for -infinity). For x < 128. Relative error at most 2e-7.
inline float exp2(float x) {
  const float clamped = x < -126.0f ? -126.0f : x;
  const float rounded = clamped + round_magic;
  const float r = clamped - (rounded - round_magic);  // in [-1/2, 1/2]
  float p = 1.54614563e-4f;
  p = p * r + 1.340044158e-3f;
  p = p * r + 9.61805665e-3f;
  p = p * r + 5.550327193e-2f;
  p = p * r + 2.402265092e-1f;
  p = p * r + 6.931472067e-1f;
  p = p * r + 1.0f;
  const float result = p * power_of_two(rounded);
  return x < -126.0f ? 0.0f : result;
}

/// e^x, held at e^-87 and e^87 outside (these and their inverses are normal numbers). Relative error at most
/// 2e-7.
inline float exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 87.0f ? 87.0f : x;
  const float rounded = x * 1.44269504f + round_magic;
  const float n = rounded - round_magic;
  // ln 2 in two parts, the first with so few bits that n times it is exact (Cody and Waite).
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.39411189e-3f;
  p = p * r + 8.375134775e-3f;
  p = p * r + 4.166635277e-2f;
  p = p * r + 1.666641541e-1f;
  p = p * r + 5.000000047e-1f;
  p = p * r + 1.000000038f;
  p = p * r + 1.0f;
  return p * power_of_two(rounded);
}

inline float sigmoid(float x) {
  return 1.0f / (1.0f + exp(-x));
}

/// Cumulative distribution and density of N(0, 1) at x. The distribution is exact to a few ulp relative to
/// itself, in the lower tail too down to x = -13, where it is held.
struct Normal {
  float cdf;
  float pdf;
};

inline Normal normal(float x) {
  // Phi(-z) = exp(-z^2 / 2) R(z) for z >= 0. R falls like 1 / z; R / t is a polynomial in t = 1 / (1 + 0.24
  // z).
  const float magnitude = x < 0.0f ? -x : x;
  const float z = magnitude > 13.0f ? 13.0f : magnitude;
  const float t = 1.0f / (1.0f + 0.24f * z);
  float p = 2.559860342e-2f;
  p = p * t - 1.250756752e-1f;
  p = p * t + 2.0662138e-1f;
  p = p * t - 1.459475787e-1f;
  p = p * t + 1.429796272e-1f;
  p = p * t + 2.726053434e-2f;
  p = p * t + 8.809751819e-2f;
  p = p * t + 8.885675304e-2f;
  p = p * t + 9.586732188e-2f;
  p = p * t + 9.574151729e-2f;
  const float gauss = exp(-0.5f * z * z);
  const float tail = gauss * (p * t);
  return {x < 0.0f ? tail : 1.0f - tail, gauss * 0.398942280f};
}

}  // namespace ratplus::cpu
