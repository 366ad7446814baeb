// Elementary functions in float32 from the hardware's approximations: each a handful of instructions, with a
// relative error near 1e-6, for kernels that would otherwise be bound by arithmetic instead of memory.
#pragma once

namespace ratplus::cuda {

inline constexpr float log2_e = 1.44269504f;

/// 2^x; a result below 2^-126 is 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// 1 / x, 0 where x is infinite.
__device__ __forceinline__ float reciprocal_fast(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ float exp_fast(float x) {
  return exp2_fast(x * log2_e);
}

__device__ __forceinline__ float sigmoid(float x) {
  return reciprocal_fast(1.0f + exp2_fast(x * -log2_e));
}

/// Cumulative distribution and density of N(0, 1) at x. The lower tail keeps its relative accuracy.
struct Normal {
  float cdf;
  float pdf;
};

__device__ __forceinline__ Normal normal(float x) {
  // As kernels/cpu/math.h: Phi(-z) = exp(-z^2 / 2) R(z) for z >= 0; R falls like 1 / z, and R / t is a polynomial
  // in t = 1 / (1 + 0.24 z).
  const float t = reciprocal_fast(fmaf(0.24f, fabsf(x), 1.0f));
  float p = 2.559860342e-2f;
  p = fmaf(p, t, -1.250756752e-1f);
  p = fmaf(p, t, 2.0662138e-1f);
  p = fmaf(p, t, -1.459475787e-1f);
  p = fmaf(p, t, 1.429796272e-1f);
  p = fmaf(p, t, 2.726053434e-2f);
  p = fmaf(p, t, 8.809751819e-2f);
  p = fmaf(p, t, 8.885675304e-2f);
  p = fmaf(p, t, 9.586732188e-2f);
  p = fmaf(p, t, 9.574151729e-2f);
  const float gauss = exp2_fast(x * x * (-0.5f * log2_e));
  const float tail = gauss * (p * t);
  return {x < 0.0f ? tail : 1.0f - tail, gauss * 0.398942280f};
}

}  // namespace ratplus::cuda
