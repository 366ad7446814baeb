// Residual addition and RMSNorm (Zhang and Sennrich, "Root mean square layer normalization", 2019), rows [N, d].
//
// Forward: a block takes one row, keeps it in registers between the sum of its squares and its scaling, and touches
// memory once. Floor, bf16: 12 bytes an element (x 4, delta 2, y 4, u 2). Backward: a fixed number of blocks, each
// going over rows at a fixed distance with the weight's gradient of its columns in registers; the blocks' sums go to
// scratch and are added in order by a second kernel. Floor: 16 bytes an element (du 2, dy 4, y 4, dx 4, dlayer 2).
// Rows that are no whole vectors of 8 elements, or too long for registers, take the plain kernels.
#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/vector.cuh"

namespace ratplus::cuda {
namespace {

constexpr int V = 8;              // elements of a vector
constexpr int max_threads = 512;  // of a block
constexpr int plain_threads = 256;
// Blocks of the backward, whatever the GPU, so that the order of the sums is the same: 4 for each processor of an H100.
constexpr int backward_blocks = 528;

/// Rows [N, d]: distance in elements. data may be null: absent.
template <typename T>
struct Rows {
  T* data;
  std::int64_t stride;

  __device__ __forceinline__ T* row(std::int64_t i) const { return data + i * stride; }
};

/// The sum over the block, for all of its threads; in the same order every time. `partial` must not be in use by
/// an earlier call that some thread may still be in: alternate between two.
__device__ __forceinline__ float block_sum(float x, float (&partial)[max_threads / 32]) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.0f;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) sum += partial[w];
  return sum;
}

// --- forward -----------------------------------------------------------------------------------------------------

template <typename T>
struct Forward {
  Rows<float> y;
  Rows<T> u;
  float* rstd;
  Rows<const float> x;
  Rows<const T> delta;
  const T* weight;
  int width;
  float eps;
};

template <typename T, int vectors>
__global__ void __launch_bounds__(max_threads) forward_kernel(const __grid_constant__ Forward<T> a) {
  __shared__ float partial[max_threads / 32];
  const std::int64_t row = blockIdx.x;
  const int count = a.width / V;
  const float* x = a.x.row(row);
  let_next_kernel_begin();
  wait_for_kernels_before();
  Pack<float, V> y[vectors];
  Pack<T, V> delta[vectors], weight[vectors];
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    const int c = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (c >= count) continue;
    y[i] = load<V>(x + c * V);
    weight[i] = load<V>(a.weight + c * V);
    if (a.delta.data) delta[i] = load<V>(a.delta.row(row) + c * V);
  }
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    const int c = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (c >= count) continue;
    if (a.delta.data) {
#pragma unroll
      for (int j = 0; j < V; ++j) y[i].set(j, y[i][j] + delta[i][j]);
    }
    if (a.y.data) store(a.y.row(row) + c * V, y[i]);
#pragma unroll
    for (int j = 0; j < V; ++j) squares = fmaf(y[i][j], y[i][j], squares);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares, partial) / static_cast<float>(a.width) + a.eps);
  if (threadIdx.x == 0) a.rstd[row] = scale;
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    const int c = static_cast<int>(threadIdx.x + i * blockDim.x);
    if (c >= count) continue;
    Pack<T, V> u;
#pragma unroll
    for (int j = 0; j < V; ++j) u.set(j, y[i][j] * scale * weight[i][j]);
    store(a.u.row(row) + c * V, u);
  }
}

template <typename T>
__global__ void __launch_bounds__(plain_threads) forward_plain_kernel(const __grid_constant__ Forward<T> a) {
  __shared__ float partial[max_threads / 32];
  const std::int64_t row = blockIdx.x;
  const float* x = a.x.row(row);
  float squares = 0.0f;
  for (int j = static_cast<int>(threadIdx.x); j < a.width; j += plain_threads) {
    const float y = a.delta.data ? x[j] + to_float(a.delta.row(row)[j]) : x[j];
    if (a.y.data) a.y.row(row)[j] = y;
    squares = fmaf(y, y, squares);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares, partial) / static_cast<float>(a.width) + a.eps);
  if (threadIdx.x == 0) a.rstd[row] = scale;
  // y where there is one: x may have been overwritten by it. Each thread reads what it wrote itself.
  const float* y = a.y.data ? a.y.row(row) : x;
  for (int j = static_cast<int>(threadIdx.x); j < a.width; j += plain_threads) {
    a.u.row(row)[j] = from_float<T>(y[j] * scale * to_float(a.weight[j]));
  }
}

// --- backward ----------------------------------------------------------------------------------------------------

template <typename T>
struct Backward {
  Rows<float> dx;
  Rows<T> dlayer;
  float* partial;  ///< [blocks, d], the blocks' parts of dweight
  Rows<const T> du;
  Rows<const float> dy, y;
  const float* rstd;
  const T* weight;
  std::int64_t rows;
  int width;
};

/// What one row multiplies y with: rstd^2 mean(weight du y).
__device__ __forceinline__ float along_of(float dot, float rstd, int width) {
  return dot * rstd * rstd / static_cast<float>(width);
}

/// dx = dy + rstd (weight du - y along), dweight += du y rstd. One vector a thread keeps the weight and dy in
/// registers, too; for more, they are read when needed.
template <typename T, int vectors>
__global__ void __launch_bounds__(max_threads) backward_kernel(const __grid_constant__ Backward<T> a) {
  __shared__ float partial[2][max_threads / 32];
  constexpr bool keeps = vectors == 1;
  const int count = a.width / V;
  const auto column = [](int i) { return static_cast<int>(threadIdx.x + i * blockDim.x); };
  float dweight[vectors][V];
  Pack<T, V> kept_weight;
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
#pragma unroll
    for (int j = 0; j < V; ++j) dweight[i][j] = 0.0f;
  }
  if (keeps && column(0) < count) kept_weight = load<V>(a.weight + column(0) * V);
  int turn = 0;
  for (std::int64_t row = blockIdx.x; row < a.rows; row += gridDim.x, turn ^= 1) {
    Pack<T, V> du[vectors];
    Pack<float, V> y[vectors], kept_dy;
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if (column(i) >= count) continue;
      du[i] = load<V>(a.du.row(row) + column(i) * V);
      y[i] = load<V>(a.y.row(row) + column(i) * V);
      if (keeps && a.dy.data) kept_dy = load<V>(a.dy.row(row) + column(i) * V);
    }
    const float rstd = a.rstd[row];
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if (column(i) >= count) continue;
      const Pack<T, V> weight = keeps ? kept_weight : load<V>(a.weight + column(i) * V);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        dot = fmaf(weight[j] * du[i][j], y[i][j], dot);
        dweight[i][j] = fmaf(du[i][j], y[i][j] * rstd, dweight[i][j]);
      }
    }
    const float along = along_of(block_sum(dot, partial[turn]), rstd, a.width);
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if (column(i) >= count) continue;
      const Pack<T, V> weight = keeps ? kept_weight : load<V>(a.weight + column(i) * V);
      Pack<float, V> dx;
      Pack<T, V> copy;
#pragma unroll
      for (int j = 0; j < V; ++j) dx.set(j, rstd * (weight[j] * du[i][j] - y[i][j] * along));
      if (a.dy.data) {
        const Pack<float, V> dy = keeps ? kept_dy : load<V>(a.dy.row(row) + column(i) * V);
#pragma unroll
        for (int j = 0; j < V; ++j) dx.set(j, dy[j] + dx[j]);
      }
      store(a.dx.row(row) + column(i) * V, dx);
      if (a.dlayer.data) {
#pragma unroll
        for (int j = 0; j < V; ++j) copy.set(j, dx[j]);
        store(a.dlayer.row(row) + column(i) * V, copy);
      }
    }
  }
  float* sums = a.partial + static_cast<std::int64_t>(blockIdx.x) * a.width;
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (column(i) >= count) continue;
    Pack<float, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.set(j, dweight[i][j]);
    store(sums + column(i) * V, out);
  }
}

/// The same for any width and alignment; the weight's gradient adds up in scratch.
template <typename T>
__global__ void __launch_bounds__(plain_threads)
    backward_plain_kernel(const __grid_constant__ Backward<T> a) {
  __shared__ float partial[2][max_threads / 32];
  float* sums = a.partial + static_cast<std::int64_t>(blockIdx.x) * a.width;
  for (int j = static_cast<int>(threadIdx.x); j < a.width; j += plain_threads) sums[j] = 0.0f;
  int turn = 0;
  for (std::int64_t row = blockIdx.x; row < a.rows; row += gridDim.x, turn ^= 1) {
    const T* du = a.du.row(row);
    const float* y = a.y.row(row);
    const float rstd = a.rstd[row];
    float dot = 0.0f;
    for (int j = static_cast<int>(threadIdx.x); j < a.width; j += plain_threads) {
      dot = fmaf(to_float(a.weight[j]) * to_float(du[j]), y[j], dot);
    }
    const float along = along_of(block_sum(dot, partial[turn]), rstd, a.width);
    for (int j = static_cast<int>(threadIdx.x); j < a.width; j += plain_threads) {
      const float du_j = to_float(du[j]);
      sums[j] = fmaf(du_j, y[j] * rstd, sums[j]);
      float dx = rstd * (to_float(a.weight[j]) * du_j - y[j] * along);
      if (a.dy.data) dx = a.dy.row(row)[j] + dx;
      a.dx.row(row)[j] = dx;
      if (a.dlayer.data) a.dlayer.row(row)[j] = from_float<T>(dx);
    }
  }
}

constexpr int sum_columns = 32, sum_ranges = 32;

/// dweight [d] += the sum of partial [blocks, d] over the blocks. A block takes 32 columns; its 32 warps each add up a
/// range of the blocks, and the ranges are added in order.
__global__ void __launch_bounds__(sum_columns* sum_ranges)
    add_partials_kernel(float* dweight, const float* partial, int blocks, int width) {
  __shared__ float sums[sum_ranges][sum_columns];
  const int column = static_cast<int>(blockIdx.x * sum_columns + threadIdx.x % sum_columns);
  const int range = static_cast<int>(threadIdx.x / sum_columns);
  const int length = (blocks + sum_ranges - 1) / sum_ranges;
  float sum = 0.0f;
  if (column < width) {
    const int end = min((range + 1) * length, blocks);
#pragma unroll 8
    for (int b = range * length; b < end; ++b) sum += partial[static_cast<std::int64_t>(b) * width + column];
  }
  sums[range][threadIdx.x % sum_columns] = sum;
  __syncthreads();
  if (range == 0 && column < width) {
    float total = 0.0f;
#pragma unroll
    for (int r = 0; r < sum_ranges; ++r) total += sums[r][threadIdx.x];
    dweight[column] += total;
  }
}

// --- host --------------------------------------------------------------------------------------------------------

template <typename T>
Rows<T> rows_of(const Tensor& tensor) {
  return {elements<T>(tensor), tensor ? tensor.stride(0) : 0};
}

/// Whether all rows begin at a multiple of 16 bytes.
bool aligned_rows(const Tensor& tensor) {
  if (!tensor) return true;
  return reinterpret_cast<std::uintptr_t>(tensor.raw()) % 16 == 0 &&
         (tensor.size(0) == 1 || tensor.stride(0) * size_of(tensor.dtype()) % 16 == 0);
}

/// Calls f(vectors of a thread, threads of a block) with the first a constant, for rows that registers can hold.
template <typename F>
void with_vectors(std::int64_t width, F&& f) {
  const std::int64_t count = width / V;
  const auto block = [&](std::int64_t vectors) {
    return static_cast<unsigned>((count + 32 * vectors - 1) / (32 * vectors) * 32);
  };
  if (count <= max_threads) return f(std::integral_constant<int, 1>{}, block(1));
  if (count <= 2 * max_threads) return f(std::integral_constant<int, 2>{}, block(2));
  f(std::integral_constant<int, 4>{}, block(4));
}

bool fits_registers(std::int64_t width) {
  return width % V == 0 && width <= 4 * max_threads * V;
}

}  // namespace

std::int64_t norm_scratch(std::int64_t width) {
  return backward_blocks * width * size_of(DType::f32);
}

void CudaOps::compute(const operation::NormForward& call) {
  const Tensor &y = call.y, &u = call.u, &rstd = call.rstd, &x = call.x, &delta = call.delta,
               &weight = call.weight;
  const double eps = call.eps;
  const char* op = "residual_rms_norm_forward";
  const std::int64_t rows = x.size(0), width = x.size(1);
  if (rows * width == 0) return;
  const bool fast = fits_registers(width) && aligned_rows(x) && aligned_rows(u) && aligned_rows(y) &&
                    aligned_rows(delta) && reinterpret_cast<std::uintptr_t>(weight.raw()) % 16 == 0;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    // Without delta y = x: nothing to write where they are the same memory.
    const bool writes = y && (delta || y.raw() != x.raw());
    const Forward<T> a{rows_of<float>(writes ? y : Tensor()),
                       rows_of<T>(u),
                       rstd.as<float>(),
                       rows_of<const float>(x),
                       rows_of<const T>(delta),
                       elements<T>(weight),
                       static_cast<int>(width),
                       static_cast<float>(eps)};
    const auto blocks = static_cast<unsigned>(rows);
    if (fast) {
      with_vectors(width, [&](auto vectors, unsigned threads) {
        launch_overlapped(forward_kernel<T, vectors>, blocks, threads, 0, stream_,
                          "residual_rms_norm_forward", a);
      });
    } else {
      forward_plain_kernel<T><<<blocks, plain_threads, 0, stream_>>>(a);
    }
  });
  check_launch(op);
}

void CudaOps::compute(const operation::NormBackward& call) {
  const Tensor &dx = call.dx, &dlayer = call.dlayer, &dweight = call.dweight, &du = call.du, &dy = call.dy,
               &y = call.y, &rstd = call.rstd, &weight = call.weight;
  const char* op = "residual_rms_norm_backward";
  const std::int64_t rows = du.size(0), width = du.size(1);
  if (rows * width == 0) return;
  const Tensor copy = dlayer.raw() == dx.raw() ? Tensor() : dlayer;
  auto* partial = static_cast<float*>(scratch(norm_scratch(width), op));
  const auto blocks = static_cast<int>(std::min<std::int64_t>(rows, backward_blocks));
  const bool fast = fits_registers(width) && aligned_rows(dx) && aligned_rows(copy) && aligned_rows(du) &&
                    aligned_rows(dy) && aligned_rows(y) &&
                    reinterpret_cast<std::uintptr_t>(weight.raw()) % 16 == 0;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    const Backward<T> a{rows_of<float>(dx),     rows_of<T>(copy),         partial,
                        rows_of<const T>(du),   rows_of<const float>(dy), rows_of<const float>(y),
                        rstd.as<float>(),       elements<T>(weight),      rows,
                        static_cast<int>(width)};
    if (fast) {
      with_vectors(width, [&](auto vectors, unsigned threads) {
        backward_kernel<T, vectors><<<blocks, threads, 0, stream_>>>(a);
      });
    } else {
      backward_plain_kernel<T><<<blocks, plain_threads, 0, stream_>>>(a);
    }
  });
  check_launch(op);
  const auto column_blocks = static_cast<unsigned>((width + sum_columns - 1) / sum_columns);
  add_partials_kernel<<<column_blocks, sum_columns * sum_ranges, 0, stream_>>>(
      dweight.as<float>(), partial, blocks, static_cast<int>(width));
  check_launch(op);
}

}  // namespace ratplus::cuda
