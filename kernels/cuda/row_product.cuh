// Parts that the kernels of RowProduct and ProductChain share (Hopper's tensor cores): operands in shared memory, products, norms
// before them, and the writing of their sums.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/vector.cuh"
#include "kernels/inference_operations.h"

namespace ratplus::cuda {

constexpr int slab = 64;          // elements of `in` in a row of 128 bytes, as TMA swizzles them
constexpr int operand_rows = 64;  // of wgmma
[[maybe_unused]] constexpr int operand_k = 16;  // of it; other GPUs have no such kernel

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

__device__ __forceinline__ void fetch(const CUtensorMap& map, std::uint32_t to, std::uint32_t barrier,
                                      int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];\n" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

/// The first thread of a group arrives. Without a branch: the products under way go through one badly.
__device__ __forceinline__ void arrive(std::uint32_t barrier, int thread) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.eq.s32 p, %1, 0;\n@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}\n" ::"r"(
          barrier),
      "r"(thread)
      : "memory");
}

/// Rows of 128 bytes with TMA's swizzle, eight by eight.
__device__ __forceinline__ std::uint64_t describe(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | (std::uint64_t{1} << 16) |
         (std::uint64_t{1024 >> 4} << 32) | (std::uint64_t{1} << 62);
}

#define RATPLUS_F4(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define RATPLUS_F16(d, i) \
  RATPLUS_F4(d, i), RATPLUS_F4(d, (i) + 4), RATPLUS_F4(d, (i) + 8), RATPLUS_F4(d, (i) + 12)
#define RATPLUS_F64(d, i) \
  RATPLUS_F16(d, i), RATPLUS_F16(d, (i) + 16), RATPLUS_F16(d, (i) + 32), RATPLUS_F16(d, (i) + 48)
#define RATPLUS_S4 "%0, %1, %2, %3"
#define RATPLUS_S16 RATPLUS_S4 ", %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define RATPLUS_S32 \
  RATPLUS_S16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RATPLUS_S64                                                                                        \
  RATPLUS_S32                                                                                              \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define RATPLUS_S128                                                                                         \
  RATPLUS_S64                                                                                                \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "   \
  "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, " \
  "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, "   \
  "%121, "                                                                                                   \
  "%122, %123, %124, %125, %126, %127"
#define RATPLUS_WGMMA(size, registers, a, b, ...)                                                        \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" size "k16.f32.bf16.bf16 {" registers "}, %" a ", %" b \
               ", 1, 1, 1, 0, 0;\n"                                                                      \
               : __VA_ARGS__                                                                             \
               : "l"(w), "l"(x))

/// d [64, N] += w [64, 16] x [N, 16]^T.
template <int N>
__device__ __forceinline__ void multiply(float (&d)[N / 2], std::uint64_t w, std::uint64_t x) {
  if constexpr (N == 8) {
    RATPLUS_WGMMA("8", RATPLUS_S4, "4", "5", RATPLUS_F4(d, 0));
  } else if constexpr (N == 32) {
    RATPLUS_WGMMA("32", RATPLUS_S16, "16", "17", RATPLUS_F16(d, 0));
  } else if constexpr (N == 64) {
    RATPLUS_WGMMA("64", RATPLUS_S32, "32", "33", RATPLUS_F16(d, 0), RATPLUS_F16(d, 16));
  } else if constexpr (N == 128) {
    RATPLUS_WGMMA("128", RATPLUS_S64, "64", "65", RATPLUS_F64(d, 0));
  } else {
    static_assert(N == 256);
    RATPLUS_WGMMA("256", RATPLUS_S128, "128", "129", RATPLUS_F64(d, 0), RATPLUS_F64(d, 64));
  }
}

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
/// Normalises a.rows rows; put(row, c, elements) takes vector c of a row. Sums go the way of kernels/cuda/norm.cu.
/// By 128 threads. ready() returns once the rows may be read; `partial` has most_normed_rows most_normed / norm_columns floats.
template <typename Ready, typename Put>
__device__ __forceinline__ void normalise(const ProductArguments& a, float* partial, const Ready& ready,
                                          const Put& put) {
  constexpr int warps_of_row = most_normed / norm_columns;
  const int thread = static_cast<int>(threadIdx.x), count = a.inner / norm_vector;
  Pack<bf16, norm_vector> weight[most_vectors];
  Pack<float, norm_vector> y[most_vectors];
  const auto load_row = [&](int row) {
#pragma unroll
    for (int i = 0; i < most_vectors; ++i) {
      const int c = thread + i * norm_threads;
      if (c < count) y[i] = load<norm_vector>(a.x + row * a.x_row + c * norm_vector);
    }
  };
#pragma unroll
  for (int i = 0; i < most_vectors; ++i) {
    const int c = thread + i * norm_threads;
    if (c < count) weight[i] = load<norm_vector>(a.norm_weight + c * norm_vector);
  }
  ready();
#pragma unroll 1
  for (int row = 0; row < a.rows; ++row) {
    load_row(row);
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
    if (a.rows > 1) load_row(row);
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
