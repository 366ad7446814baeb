// Residual addition and RMSNorm (docs/model.md, section 3; Zhang and Sennrich, "Root mean square layer normalization",
// 2019).
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"

namespace ratplus::cpu {
namespace {

// The weight's gradient is a sum over all rows: summed in this many ranges of rows, whatever the number of
// threads, and then over the ranges in order.
constexpr std::int64_t row_ranges = 64;

/// y = x + delta; returns the sum of the squares of y. delta and y may be null (y = x).
float add_and_square(float* y, const float* x, const float* delta, std::int64_t width) {
  float squares = 0;
  if (delta) {
#pragma omp simd reduction(+ : squares)
    for (std::int64_t j = 0; j < width; ++j) {
      const float value = x[j] + delta[j];
      y[j] = value;
      squares += value * value;
    }
    return squares;
  }
#pragma omp simd reduction(+ : squares)
  for (std::int64_t j = 0; j < width; ++j) squares += x[j] * x[j];
  if (y && y != x) std::copy(x, x + width, y);
  return squares;
}

/// One row: dx = dy + rstd (weight du - y rstd^2 mean(weight du y)), and dweight += du y rstd.
void backward_row(float* dx, float* __restrict dweight, const float* du, const float* dy, const float* y,
                  const float* weight, float rstd, std::int64_t width) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (std::int64_t j = 0; j < width; ++j) dot += weight[j] * du[j] * y[j];
  const float along = dot * rstd * rstd / static_cast<float>(width);
  if (dy) {
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      dweight[j] += du[j] * (y[j] * rstd);
      dx[j] = dy[j] + rstd * (weight[j] * du[j] - y[j] * along);
    }
  } else {
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) {
      dweight[j] += du[j] * (y[j] * rstd);
      dx[j] = rstd * (weight[j] * du[j] - y[j] * along);
    }
  }
}

}  // namespace

std::int64_t norm_scratch(std::int64_t width) {
  return row_ranges * width;
}

void CpuOps::compute(const operation::NormForward& call) {
  const Tensor &y = call.y, &u = call.u, &rstd = call.rstd, &x = call.x, &delta = call.delta,
               &weight = call.weight;
  const double eps = call.eps;
  const std::int64_t rows = x.size(0), width = x.size(1);
  const float* w = weight.as<float>();
#pragma omp parallel for schedule(static) num_threads(threads_) if (rows * width > 16384)
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* in = x.as<float>() + i * x.stride(0);
    float* sum = y ? y.as<float>() + i * y.stride(0) : nullptr;
    float* out = u.as<float>() + i * u.stride(0);
    const float squares =
        add_and_square(sum, in, delta ? delta.as<float>() + i * delta.stride(0) : nullptr, width);
    const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(width) + eps));
    rstd.as<float>()[i] = scale;
    const float* value = delta ? sum : in;
#pragma omp simd
    for (std::int64_t j = 0; j < width; ++j) out[j] = value[j] * scale * w[j];
  }
}

void CpuOps::compute(const operation::NormBackward& call) {
  const Tensor &dx = call.dx, &dlayer = call.dlayer, &dweight = call.dweight, &du = call.du, &dy = call.dy,
               &y = call.y, &rstd = call.rstd, &weight = call.weight;
  const char* op = "residual_rms_norm_backward";
  const std::int64_t rows = du.size(0), width = du.size(1);
  float* partial = scratch(norm_scratch(width), op);  // [row_ranges, width]
  const std::int64_t range = (rows + row_ranges - 1) / row_ranges;
#pragma omp parallel num_threads(threads_) if (rows * width > 16384)
  {
#pragma omp for schedule(static)
    for (std::int64_t r = 0; r < row_ranges; ++r) {
      std::fill(partial + r * width, partial + (r + 1) * width, 0.0f);
      for (std::int64_t i = r * range; i < std::min((r + 1) * range, rows); ++i) {
        backward_row(dx.as<float>() + i * dx.stride(0), partial + r * width,
                     du.as<float>() + i * du.stride(0), dy ? dy.as<float>() + i * dy.stride(0) : nullptr,
                     y.as<float>() + i * y.stride(0), weight.as<float>(), rstd.as<float>()[i], width);
      }
    }
#pragma omp for schedule(static)
    for (std::int64_t j = 0; j < width; ++j) {
      double sum = 0;
      for (std::int64_t r = 0; r < row_ranges; ++r) sum += partial[r * width + j];
      dweight.as<float>()[j] += static_cast<float>(sum);
    }
  }
  if (dlayer && dlayer.raw() != dx.raw())
    compute(operation::Copy{dlayer, dx});  // the compute type is dx's own: seldom asked for
}

}  // namespace ratplus::cpu
