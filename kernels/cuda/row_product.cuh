// Parts that the kernels of RowProduct and ProductChain share: barriers of their stages, norms before products, and the writing of
// their sums.
#pragma once

#include <cstdint>

#include "kernels/cuda/math.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/inference_operations.h"

namespace ratplus::cuda {

struct ProductArguments {
  void* y;
  std::int64_t y_row;
  int rows, outputs, steps;
  bool gelu;
  float* residual;  ///< [rows, outputs], or null
  std::int64_t residual_row;
  const float* x;  ///< of a norm: [rows, inner]
  std::int64_t x_row;
  const bf16* norm_weight;
  int inner;
  float eps;
};

// Of a norm, a thread takes at most two vectors of 8 elements; more would leave no room for another block.
constexpr int norm_vector = 8, most_vectors = 2, norm_threads = 128,
              norm_columns = operation::RowProduct::norm_columns,
              most_normed = operation::RowProduct::most_normed,
              most_normed_rows = operation::RowProduct::most_normed_rows;
static_assert(norm_columns == 32 * norm_vector && most_normed == norm_threads * most_vectors * norm_vector);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Of an element as it was added up: rounded, or GELU of that.
template <typename T>
__device__ __forceinline__ T finished(float x, bool gelu) {
  const T rounded = from_float<T>(x);
  if (!gelu) return rounded;
  const float h = to_float(rounded);
  return from_float<T>(h * normal(h).cdf);
}

template <typename T>
__device__ __forceinline__ T* row_of(const ProductArguments& a, int row) {
  return static_cast<T*>(a.y) + row * a.y_row;
}

/// Of a stage: its operands have come; all groups have multiplied them.
__device__ __forceinline__ std::uint32_t full_barrier(std::uint32_t base, int stage) {
  return base + stage * 16;
}
__device__ __forceinline__ std::uint32_t empty_barrier(std::uint32_t base, int stage) {
  return base + stage * 16 + 8;
}
/// Vectors thread, thread + norm_threads, ... of a row of x, as far as there are.
__device__ __forceinline__ void load_row_of(const ProductArguments& a, int row,
                                            Pack<float, norm_vector> (&y)[most_vectors]) {
#pragma unroll
  for (int i = 0; i < most_vectors; ++i) {
    const int c = static_cast<int>(threadIdx.x) + i * norm_threads;
    if (c < a.inner / norm_vector) y[i] = load<norm_vector>(a.x + row * a.x_row + c * norm_vector);
  }
}

/// Normalises a.rows rows; put(row, c, elements) takes vector c of a row. Sums go the way of kernels/cuda/norm.cu.
/// By 128 threads. ready() returns once load_row(row, y), as load_row_of, may be called; `partial` has most_normed_rows
/// most_normed / norm_columns floats.
template <typename Ready, typename LoadRow, typename Put>
__device__ __forceinline__ void normalise(const ProductArguments& a, float* partial, const Ready& ready,
                                          const LoadRow& load_row, const Put& put) {
  constexpr int warps_of_row = most_normed / norm_columns;
  const int thread = static_cast<int>(threadIdx.x), count = a.inner / norm_vector;
  Pack<bf16, norm_vector> weight[most_vectors];
  Pack<float, norm_vector> y[most_vectors];
#pragma unroll
  for (int i = 0; i < most_vectors; ++i) {
    const int c = thread + i * norm_threads;
    if (c < count) weight[i] = load<norm_vector>(a.norm_weight + c * norm_vector);
  }
  ready();
#pragma unroll 1
  for (int row = 0; row < a.rows; ++row) {
    load_row(row, y);
    float squares[most_vectors] = {};
#pragma unroll
    for (int i = 0; i < most_vectors; ++i) {
      if (thread + i * norm_threads >= count) continue;
#pragma unroll
      for (int j = 0; j < norm_vector; ++j) squares[i] = fmaf(y[i][j], y[i][j], squares[i]);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
#pragma unroll
      for (float& of_vector : squares) of_vector += __shfl_xor_sync(~0u, of_vector, offset);
    }
    if (thread % 32 != 0) continue;
#pragma unroll
    for (int i = 0; i < most_vectors; ++i)
      partial[row * warps_of_row + thread / 32 + i * (norm_threads / 32)] = squares[i];
  }
  asm volatile("bar.sync 1, %0;\n" ::"n"(norm_threads) : "memory");
#pragma unroll 1
  for (int row = 0; row < a.rows; ++row) {
    if (a.rows > 1) load_row(row, y);
    float sum = 0;
    for (int w = 0; w < count / 32; ++w) sum += partial[row * warps_of_row + w];
    const float scale = 1.0f / sqrtf(sum / static_cast<float>(a.inner) + a.eps);
#pragma unroll
    for (int i = 0; i < most_vectors; ++i) {
      const int c = thread + i * norm_threads;
      if (c >= count) continue;
      Pack<bf16, norm_vector> u;
#pragma unroll
      for (int j = 0; j < norm_vector; ++j) u.set(j, y[i][j] * scale * weight[i][j]);
      put(row, c, u);
    }
  }
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
  asm volatile("bar.sync 1, %0;\n" ::"n"(norm_threads) : "memory");
}

/// This lane's elements: row 16 warp + lane / 4 (and 8 more) of w, columns 2 (lane mod 4) + 8 j (and the next).
template <int N, typename T>
__device__ __forceinline__ void write_elements(const ProductArguments& a, const float (&d)[N / 2],
                                               int first_output, int end_output, int first_row,
                                               const float (&before)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) % 128 / 32;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = first_row + j * 8 + lane % 4 * 2 + e % 2;
      const int output = first_output + warp * 16 + lane / 4 + e / 2 * 8;
      if (row >= a.rows || output >= end_output) continue;
      const T y = finished<T>(d[j * 4 + e], a.gelu);
      if (N == most_normed_rows && a.residual) {
        a.residual[row * a.residual_row + output] = before[e] + to_float(y);
      } else {
        row_of<T>(a, row)[output] = y;
      }
    }
  }
}

/// Reads the residual's elements of this lane, of 8 rows, while the products are still to come.
__device__ __forceinline__ void read_residual(const ProductArguments& a, float (&before)[4], int first_output,
                                              int end_output, int first_row) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) % 128 / 32;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int row = first_row + lane % 4 * 2 + e % 2;
    const int output = first_output + warp * 16 + lane / 4 + e / 2 * 8;
    if (row < a.rows && output < end_output) before[e] = a.residual[row * a.residual_row + output];
  }
}

#endif

}  // namespace ratplus::cuda
