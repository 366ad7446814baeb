// Sums for the gradient's norm, and AdamW.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/adamw_update.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/rows.h"
#include "kernels/digest_mix.h"

namespace ratplus::cpu {
namespace {

/// Sum of term(x_i) in float64: in ranges that depend on n alone, then over the ranges in order, so that the
/// bits do not depend on the number of threads.
template <typename Term>
double ordered_sum(const float* x, std::int64_t n, int threads, Term&& term) {
  constexpr std::int64_t ranges = 256;
  std::array<double, ranges> partial{};
  const std::int64_t range = (n + ranges - 1) / ranges;
#pragma omp parallel for schedule(static) num_threads(threads) if (n > 65536)
  for (std::int64_t r = 0; r < ranges; ++r) {
    double total = 0;
    const std::int64_t end = std::min((r + 1) * range, n);
#pragma omp simd reduction(+ : total)
    for (std::int64_t i = r * range; i < end; ++i) total += term(x[i]);
    partial[static_cast<std::size_t>(r)] = total;
  }
  double total = 0;
  for (const double value : partial) total += value;
  return total;
}

/// Sum of the mixes of n elements, whose bits are those of an integer type; in whatever order, since integers wrap.
template <typename Bits>
std::uint64_t digest_of(const void* x, std::int64_t n, int threads) {
  const auto* elements = static_cast<const unsigned char*>(x);
  std::uint64_t total = 0;
#pragma omp parallel for simd schedule(static) num_threads(threads) if (parallel : n > 65536) reduction(+ : total)
  for (std::int64_t i = 0; i < n; ++i) {
    Bits bits = 0;
    std::memcpy(&bits, elements + static_cast<std::size_t>(i) * sizeof(Bits), sizeof(Bits));
    total += digest_mix(static_cast<std::uint64_t>(i), bits);
  }
  return total;
}

void update_range(float* __restrict master, float* __restrict m, float* __restrict v,
                  const float* __restrict gradient, std::int64_t begin, std::int64_t end,
                  const AdamWFactors& f) {
#pragma omp simd
  for (std::int64_t i = begin; i < end; ++i) {
    const float g = gradient[i] * f.gradient;
    const float mean = f.beta1 * m[i] + f.one_minus_beta1 * g;
    const float square = f.beta2 * v[i] + f.one_minus_beta2 * (g * g);
    m[i] = mean;
    v[i] = square;
    const float denominator = std::sqrt(square) * f.inverse_root_correction + f.eps;
    master[i] = master[i] * f.decay - f.rate * (mean / denominator);
  }
}

}  // namespace

void CpuOps::compute(const operation::AddSum& call) {
  const Tensor &total = call.total, &x = call.x;
  *total.as<double>() +=
      ordered_sum(x.as<float>(), x.numel(), threads_, [](float value) { return static_cast<double>(value); });
}

void CpuOps::compute(const operation::AddSumOfSquares& call) {
  const Tensor &total = call.total, &x = call.x;
  *total.as<double>() += ordered_sum(x.as<float>(), x.numel(), threads_, [](float value) {
    return static_cast<double>(value) * static_cast<double>(value);
  });
}

void CpuOps::compute(const operation::AddDigest& call) {
  const bool half = call.x.dtype() == DType::bf16;
  auto* digest = call.digest.as<std::int32_t>();
  std::uint64_t sum = 0;
  std::memcpy(&sum, digest, sizeof(sum));
  sum += half ? digest_of<std::uint16_t>(call.x.raw(), call.x.numel(), threads_)
              : digest_of<std::uint32_t>(call.x.raw(), call.x.numel(), threads_);
  std::memcpy(digest, &sum, sizeof(sum));
}

void CpuOps::compute(const operation::AdamWUpdate& call) {
  const Tensor &master = call.master, &m = call.m, &v = call.v, &weights = call.weights,
               &gradient = call.gradient;
  const AdamW& update = call.update;
  const bool copies = call.copies();
  const std::int64_t n = master.size(0);
  const AdamWFactors factors(update);
  for_pieces(1, n, threads_, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    const float* master_data = master.as<float>();
    update_range(master.as<float>(), m.as<float>(), v.as<float>(), gradient.as<float>(), begin, end, factors);
    if (!copies) return;
    if (weights.dtype() == DType::f32) {
      std::copy(master_data + begin, master_data + end, weights.as<float>() + begin);
    } else {
      bf16_t* out = weights.as<bf16_t>();
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) out[i] = to_bf16(master_data[i]);
    }
  });
}

}  // namespace ratplus::cpu
