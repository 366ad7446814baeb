// The rotary embedding of one tensor of heads, sums over heads that share keys or queries, and sums of columns.
//
// Floors: elements of x and of out once each; of sums of columns, x once.
#include "kernels/cuda/shared_heads.cuh"

#include <algorithm>

#include "kernels/cuda/sum_heads.h"

namespace ratplus::cuda {
namespace rotary {
namespace {

constexpr int turn_steps = 4;  // of a warp

/// Blocks: [steps / (warps turn_steps), groups of channels], the groups fastest.
template <typename T, int pairs>
__global__ void __launch_bounds__(threads)
    turn_one_kernel(HeadRows<const T> x, HeadRows<T> out, HeadRows<const float> rope_rows, Sizes sizes,
                    bool back, int groups) {
  constexpr int steps = turn_steps, n = 2 * pairs;
  const Lane lane = lane_of_group<pairs>(sizes, static_cast<int>(blockIdx.x) % groups);
  const int half = sizes.head_dim / 2;
  const int first =
      (static_cast<int>(blockIdx.x) / groups * warps + static_cast<int>(threadIdx.x) / 32) * steps;
  const int end = lane.active ? sizes.tokens : 0;
  const LaneRows from(x, lane);
  const LaneRows to(out, lane);
  const LaneRows rope(rope_rows, lane);
  Pairs<T, pairs> loaded[steps];
#pragma unroll
  for (int i = 0; i < steps; ++i) loaded[i] = load_pairs<pairs>(from[min(first + i, sizes.tokens - 1)], half);
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int t = first + i;
    if (t >= end) break;
    const Rotation<pairs> rotation(rope[t], half);
    float turned[n];
    if (back) {
      rotation.turn_back(turned, loaded[i]);
    } else {
      rotation.turn(turned, loaded[i]);
    }
    store_pairs<pairs>(to[t], half, turned);
  }
}

/// A thread has one pair of channels of one head of out at one position.
template <typename T>
__global__ void __launch_bounds__(threads)
    sum_heads_kernel(HeadRows<const T> x, HeadRows<T> out, HeadRows<const float> rope, Sizes sizes,
                     Sharing sharing, std::int64_t count) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (index >= count) return;
  const int half = sizes.head_dim / 2, i = static_cast<int>(index % half);
  const std::int64_t row = index / half;
  const int g = static_cast<int>(row % sizes.heads);
  const std::int64_t token = row / sizes.heads;
  const int t = static_cast<int>(token % sizes.tokens), b = static_cast<int>(token / sizes.tokens);
  float low = 0.0f, high = 0.0f;
#pragma unroll 4
  for (int m = 0; m < sharing.members; ++m) {
    const Lane lane{true, b, g * sharing.group_step + m * sharing.member_step, i};
    const T* from = LaneRows(x, lane)[t];
    low += to_float(from[0]);
    high += to_float(from[half]);
  }
  if (rope.data != nullptr) {
    const float* at = LaneRows(rope, Lane{true, 0, 0, i})[t];
    const float cos = at[0], sin = at[half], turned = low * cos + high * sin;
    high = high * cos - low * sin;
    low = turned;
  }
  T* to = LaneRows(out, Lane{true, b, g, i})[t];
  to[0] = from_float<T>(low);
  to[half] = from_float<T>(high);
}

}  // namespace

template <typename T>
void launch_turn_one(HeadRows<const T> x, HeadRows<T> out, HeadRows<const float> rope, Sizes sizes, bool back,
                     cudaStream_t stream, const char* op) {
  with_form(all_in_twos(sizes, rope, x, out), 0, [&](auto pairs, auto) {
    const auto groups = static_cast<int>(groups_of(sizes.batch, sizes.heads, sizes.head_dim, pairs));
    const std::int64_t blocks = blocks_of(sizes.tokens, warps * turn_steps) * groups;
    turn_one_kernel<T, pairs>
        <<<static_cast<unsigned>(blocks), threads, 0, stream>>>(x, out, rope, sizes, back, groups);
  });
  check_launch(op);
}

template <typename T>
void launch_sum_heads(HeadRows<const T> x, HeadRows<T> out, HeadRows<const float> rope, Sizes sizes,
                      Sharing sharing, cudaStream_t stream, const char* op) {
  const std::int64_t count =
      std::int64_t{sizes.batch} * sizes.tokens * sizes.heads * static_cast<std::int64_t>(sizes.head_dim / 2);
  sum_heads_kernel<T><<<static_cast<unsigned>(blocks_of(count, threads)), threads, 0, stream>>>(
      x, out, rope, sizes, sharing, count);
  check_launch(op);
}

template void launch_turn_one(HeadRows<const float>, HeadRows<float>, HeadRows<const float>, Sizes, bool,
                              cudaStream_t, const char*);
template void launch_turn_one(HeadRows<const bf16>, HeadRows<bf16>, HeadRows<const float>, Sizes, bool,
                              cudaStream_t, const char*);
template void launch_sum_heads(HeadRows<const float>, HeadRows<float>, HeadRows<const float>, Sizes, Sharing,
                               cudaStream_t, const char*);
template void launch_sum_heads(HeadRows<const bf16>, HeadRows<bf16>, HeadRows<const float>, Sizes, Sharing,
                               cudaStream_t, const char*);

}  // namespace rotary

void sum_neighbouring_heads(const Tensor& out, const Tensor& x, cudaStream_t stream) {
  const auto members = static_cast<int>(x.size(2) / out.size(2));
  with_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    rotary::launch_sum_heads<T>(rotary::head_rows<const T>(x), rotary::head_rows<T>(out), {},
                                rotary::sizes_of(out), {members, 1, members}, stream,
                                "sum_neighbouring_heads");
  });
}

// --- sums of columns ----------------------------------------------------------------------------------------------

namespace {

constexpr int column_warps = 8, column_threads = 32 * column_warps;
constexpr std::int64_t most_splits = 64, least_rows = 64;

/// Parts of the rows; depends on nothing but their number, so that results do not depend on the GPU.
std::int64_t splits_of(std::int64_t rows) {
  return std::clamp<std::int64_t>(rows / least_rows, 1, most_splits);
}

/// Blocks: [splits, 32 columns], the columns fastest. partials [splits, columns].
template <typename T>
__global__ void __launch_bounds__(column_threads)
    column_sums_kernel(float* partials, const T* x, std::int64_t stride, std::int64_t rows,
                       std::int64_t columns, std::int64_t splits) {
  __shared__ float sums[column_warps][32];
  const std::int64_t column_blocks = (columns + 31) / 32;
  const std::int64_t split = static_cast<std::int64_t>(blockIdx.x) / column_blocks;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) % column_blocks * 32 + lane;
  const std::int64_t end = rows * (split + 1) / splits;
  float sum = 0.0f;
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t row = rows * split / splits + warp; row < end; row += column_warps) {
      sum += to_float(x[row * stride + column]);
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= columns) return;
#pragma unroll
  for (int w = 1; w < column_warps; ++w) sum += sums[w][lane];
  partials[split * columns + column] = sum;
}

__global__ void __launch_bounds__(column_threads)
    add_partials_kernel(float* sums, std::int64_t stride, const float* partials, std::int64_t columns,
                        std::int64_t splits) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * column_threads + threadIdx.x;
  if (column >= columns) return;
  float sum = 0.0f;
  for (std::int64_t split = 0; split < splits; ++split) sum += partials[split * columns + column];
  sums[column * stride] += sum;
}

}  // namespace

std::int64_t column_sums_scratch(std::int64_t columns) {
  return most_splits * columns * static_cast<std::int64_t>(sizeof(float));
}

void CudaOps::compute(const operation::AddColumnSums& call) {
  const std::int64_t rows = call.x.size(0), columns = call.x.size(1), splits = splits_of(rows);
  if (rows * columns == 0) return;
  auto* partials = static_cast<float*>(scratch(column_sums_scratch(columns), call.name));
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    column_sums_kernel<T>
        <<<static_cast<unsigned>((columns + 31) / 32 * splits), column_threads, 0, stream_>>>(
            partials, elements<const T>(call.x), call.x.stride(0), rows, columns, splits);
  });
  check_launch(call.name);
  add_partials_kernel<<<static_cast<unsigned>(blocks_of(columns, column_threads)), column_threads, 0,
                        stream_>>>(call.sums.as<float>(), call.sums.stride(0), partials, columns, splits);
  check_launch(call.name);
}

}  // namespace ratplus::cuda
