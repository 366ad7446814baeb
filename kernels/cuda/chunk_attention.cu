// The own keys of attention over chunks (chunk_attention.h): a group of P / 8 lanes has a row of P channels of a head.
//
// Floors in bytes: forward k, v and out read and out written once, q for each head of queries; backward dout, out, k, v and
// dq read and dq, dk, dv written once. With N = 262144, H = 16, P = 128: 1.4 and 2.9 ms on an H100.
#include "kernels/cuda/chunk_attention.h"

#include <cmath>

#include "kernels/cuda/checks.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/pattern_attention_tiles.cuh"

namespace ratplus::cuda {
namespace {

constexpr int own_threads = 256, lane_channels = 8;

/// A row of one head: its sequence, token, head, and this lane's first channel.
struct OwnRow {
  int b, t, h, channel;
};

struct OwnSizes {
  int batch, tokens, heads, query_heads, chunk, chunks;
  float scale;

  /// Rows come token by token, all heads of a token together. False past the last.
  template <int P>
  __device__ __forceinline__ bool row(OwnRow& row) const {
    constexpr unsigned lanes = P / lane_channels;
    const unsigned index = blockIdx.x * (own_threads / lanes) + threadIdx.x / lanes;
    const unsigned token = index / static_cast<unsigned>(heads);
    row.h = static_cast<int>(index - token * static_cast<unsigned>(heads));
    row.t = static_cast<int>(token);
    row.b = static_cast<int>(blockIdx.y);
    row.channel = static_cast<int>(threadIdx.x % lanes) * lane_channels;
    return row.t < tokens;
  }
  /// Element of sums [H, B, D, C - 1]; c > 0.
  __device__ __forceinline__ std::int64_t sum_at(const OwnRow& row, int c) const {
    const int offset = row.t - c * chunk;
    return ((static_cast<std::int64_t>(row.h) * batch + row.b) * chunk + offset) * (chunks - 1) + c - 1;
  }
  /// Element of lse [B, H, T].
  __device__ __forceinline__ std::int64_t lse_at(const OwnRow& row) const {
    return (static_cast<std::int64_t>(row.b) * heads + row.h) * tokens + row.t;
  }
};

using Channels = Pack<bf16, lane_channels>;

__device__ __forceinline__ bf16* channels_at(const Rows<bf16>& rows, const OwnRow& row, int head) {
  return HeadRows<bf16>(rows, row.b, head).row(row.t) + row.channel;
}
__device__ __forceinline__ Channels channels_of(const Rows<bf16>& rows, const OwnRow& row, int head) {
  return load<lane_channels>(channels_at(rows, row, head));
}

/// The sum over the lanes of a row. Whole warps call it.
template <int P>
__device__ __forceinline__ float sum_of_lanes(float x) {
#pragma unroll
  for (int step = 1; step < P / lane_channels; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

template <int P>
__device__ __forceinline__ float product_of_rows(const Channels& a, const Channels& b) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < lane_channels; ++i) sum = fmaf(a[i], b[i], sum);
  return sum_of_lanes<P>(sum);
}

struct Merge {
  Rows<bf16> q, k, v, out;
  const float* sums;
  float* lse;
  OwnSizes sizes;
};

template <int P>
__global__ void __launch_bounds__(own_threads) merge_kernel(const __grid_constant__ Merge x) {
  OwnRow row;
  const bool there = x.sizes.row<P>(row);
  if (!there) row.t = x.sizes.tokens - 1;  // shuffles want all lanes
  const Channels q = channels_of(x.q, row, row.h % x.sizes.query_heads), k = channels_of(x.k, row, row.h),
                 v = channels_of(x.v, row, row.h);
  const float own = product_of_rows<P>(q, k) * x.sizes.scale;
  if (!there) return;
  const int c = row.t / x.sizes.chunk;
  bf16* const to = channels_at(x.out, row, row.h);
  float lse = own;
  Channels merged = v;
  if (c > 0) {
    const float over_chunks = x.sums[x.sizes.sum_at(row, c)];
    const float largest = fmaxf(own, over_chunks);
    lse = largest + logf(exp_fast(own - largest) + exp_fast(over_chunks - largest));
    const float weight = exp_fast(own - lse);
    merged = load<lane_channels>(to);
#pragma unroll
    for (int i = 0; i < lane_channels; ++i) merged.set(i, fmaf(weight, v[i] - merged[i], merged[i]));
  }
  store(to, merged);
  if (row.channel == 0) x.lse[x.sizes.lse_at(row)] = lse;
}

struct AddOwn {
  Rows<bf16> q, k, v, out, dout, dq, dk, dv;
  const float* lse;
  OwnSizes sizes;
};

/// to = (to or nothing) + factor x.
__device__ __forceinline__ void add_to(bf16* to, bool holds, float factor, const Channels& x) {
  Channels sum;
  if (holds) {
    sum = load<lane_channels>(to);
#pragma unroll
    for (int i = 0; i < lane_channels; ++i) sum.set(i, fmaf(factor, x[i], sum[i]));
  } else {
#pragma unroll
    for (int i = 0; i < lane_channels; ++i) sum.set(i, factor * x[i]);
  }
  store(to, sum);
}

template <int P>
__global__ void __launch_bounds__(own_threads) add_own_kernel(const __grid_constant__ AddOwn x) {
  OwnRow row;
  const bool there = x.sizes.row<P>(row);
  if (!there) row.t = x.sizes.tokens - 1;
  const Channels q = channels_of(x.q, row, row.h % x.sizes.query_heads), k = channels_of(x.k, row, row.h),
                 v = channels_of(x.v, row, row.h), out = channels_of(x.out, row, row.h),
                 dout = channels_of(x.dout, row, row.h);
  const float own = product_of_rows<P>(q, k) * x.sizes.scale;
  float change = 0.0f;  // dout . (v - out): zero to the bit where the own key is the only one
#pragma unroll
  for (int i = 0; i < lane_channels; ++i) change = fmaf(dout[i], v[i] - out[i], change);
  change = sum_of_lanes<P>(change);
  if (!there) return;
  const float weight = exp_fast(own - x.lse[x.sizes.lse_at(row)]);
  const float dscore = weight * change * x.sizes.scale;
  const int c = row.t / x.sizes.chunk;
  const bool ends = row.t - c * x.sizes.chunk == x.sizes.chunk - 1 && c < x.sizes.chunks - 1;
  add_to(channels_at(x.dq, row, row.h), c > 0, dscore, k);
  add_to(channels_at(x.dk, row, row.h), ends, dscore, q);
  add_to(channels_at(x.dv, row, row.h), ends, weight, dout);
}

/// A thread has one element of sums.
__global__ void __launch_bounds__(own_threads)
    gather_sums_kernel(float* sums, const float* lse, OwnSizes sizes, std::int64_t count) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * own_threads + threadIdx.x;
  if (index >= count) return;
  const std::int64_t rows = sizes.chunks - 1, of_sequence = rows * sizes.chunk;
  const std::int64_t sequence_head = index / of_sequence, within = index % of_sequence;
  const auto h = static_cast<int>(sequence_head / sizes.batch),
             b = static_cast<int>(sequence_head % sizes.batch);
  const auto offset = static_cast<int>(within / rows), c = static_cast<int>(within % rows) + 1;
  sums[index] = lse[sizes.lse_at({b, c * sizes.chunk + offset, h, 0})];
}

template <typename Call>
OwnSizes own_sizes(const Call& call, std::int64_t chunk) {
  const std::int64_t tokens = call.k.size(1), head_dim = call.k.size(3);
  return {static_cast<int>(call.k.size(0)),
          static_cast<int>(tokens),
          static_cast<int>(call.k.size(2)),
          static_cast<int>(call.q.size(2)),
          static_cast<int>(chunk),
          static_cast<int>(tokens / chunk),
          static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)))};
}

/// Calls f(std::integral_constant<int, P>, grid) for P = 64 or 128.
template <typename F>
void launch_rows(const OwnSizes& sizes, std::int64_t head_dim, F&& f) {
  const std::int64_t rows = std::int64_t{sizes.tokens} * sizes.heads;
  const auto grid = [&](std::int64_t lanes) {
    return dim3(static_cast<unsigned>(blocks_of(rows * lanes, own_threads)),
                static_cast<unsigned>(sizes.batch));
  };
  if (head_dim == 64) return f(std::integral_constant<int, 64>{}, grid(64 / lane_channels));
  f(std::integral_constant<int, 128>{}, grid(128 / lane_channels));
}

}  // namespace

void merge_own_keys(const operation::AttentionForward& call, const Tensor& sums, cudaStream_t stream) {
  const Merge x{Rows<bf16>(call.q), Rows<bf16>(call.k),   Rows<bf16>(call.v),           Rows<bf16>(call.out),
                sums.as<float>(),   call.lse.as<float>(), own_sizes(call, sums.size(2))};
  launch_rows(x.sizes, call.k.size(3), [&](auto p, dim3 grid) {
    merge_kernel<decltype(p)::value><<<grid, own_threads, 0, stream>>>(x);
  });
  check_launch(call.name);
}

void gather_chunk_sums(const Tensor& sums, const operation::AttentionBackward& call, cudaStream_t stream) {
  gather_sums_kernel<<<static_cast<unsigned>(blocks_of(sums.numel(), own_threads)), own_threads, 0, stream>>>(
      sums.as<float>(), call.lse.as<float>(), own_sizes(call, sums.size(2)), sums.numel());
  check_launch(call.name);
}

void add_own_keys(const operation::AttentionBackward& call, std::int64_t chunk, cudaStream_t stream) {
  const AddOwn x{Rows<bf16>(call.q),    Rows<bf16>(call.k),    Rows<bf16>(call.v),  Rows<bf16>(call.out),
                 Rows<bf16>(call.dout), Rows<bf16>(call.dq),   Rows<bf16>(call.dk), Rows<bf16>(call.dv),
                 call.lse.as<float>(),  own_sizes(call, chunk)};
  launch_rows(x.sizes, call.k.size(3), [&](auto p, dim3 grid) {
    add_own_kernel<decltype(p)::value><<<grid, own_threads, 0, stream>>>(x);
  });
  check_launch(call.name);
}

}  // namespace ratplus::cuda
