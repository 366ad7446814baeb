// What the backward kernels of pattern attention by tiles share: their argument, the keys of a block, and the sums of splits.
#pragma once

#include <climits>
#include <cmath>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/pattern_attention_tiles.cuh"

namespace ratplus::cuda::tiles {

template <typename T>
struct Backward {
  Backward(const operation::AttentionBackward& call, const BackwardScratch& memory)
      : q(call.q, call.first_query),
        k(call.k),
        v(call.v),
        out(call.out, call.first_query),
        dout(call.dout, call.first_query),
        dq(call.dq, call.first_query),
        dk(call.dk),
        dv(call.dv),
        lse(call.lse.as<float>() - call.first_query),
        delta(memory.delta - call.first_query),
        partials(memory.partials),
        heads(static_cast<int>(call.out.size(2))),
        map(call.out, call.q, call.k),
        first(static_cast<int>(call.first_query)),
        queries(static_cast<int>(call.q.size(1))),
        p(static_cast<int>(call.q.size(3))),
        scale(1.0f / std::sqrt(static_cast<float>(p))) {}

  /// own_keys: whether blocks of 64 neighbouring keys are there for W = 0, too.
  void set(const HeadGroup& heads_of_launch, std::int64_t batch, bool own_keys) {
    group = heads_of_launch;
    sequence_heads = static_cast<int>(batch * group.count);
    splits = KeptSplits(group.lists, sequence_heads, first);
    window_blocks = group.lists.window > (own_keys ? -1 : 0) ? blocks_of_tile(group.lists.tokens) : 0;
  }
  int query_blocks() const { return (group.lists.tokens - 1) / tile_rows - first / tile_rows + 1; }
  __host__ __device__ int key_blocks() const { return splits.blocks() + window_blocks; }

  Rows<T> q, k, v, out, dout, dq, dk, dv;
  const float* lse;  ///< [B, H, Tq], shifted: position t is element t
  float* delta;      ///< the same
  float* partials;   ///< [B heads of the group, splits, kept keys, 2, P]
  int heads;         ///< H
  HeadMap map;
  int first;    ///< position of the first query
  int queries;  ///< Tq
  int p;
  float scale;
  int window_blocks = 0;   ///< of the kernel of keys, a head
  int sequence_heads = 0;  ///< B heads of the group
  KeptSplits splits;
  HeadGroup group;

 private:
  static int blocks_of_tile(int tokens) { return (tokens + tile_rows - 1) / tile_rows; }
};

/// The keys of a block, and the queries that it walks over.
struct KeyBlock {
  /// index: first the blocks of kept keys, then those of windows.
  __device__ KeyBlock(const KeyLists& key_lists, const KeptSplits& splits, int index)
      : lists(key_lists), kept(index < splits.blocks()), first(splits.first) {
    if (kept) {
      split = index % splits.splits;
      column = index / splits.splits * tile_rows;
      keys = splits.kept;
      // Whole sub-tiles of queries; the ranges mask the first one.
      begin = max(max(split * splits.length, lists.kept_position(column)), first) / 16 * 16;
      end = min((split + 1) * splits.length, lists.tokens);
    } else {
      column = (index - splits.blocks()) * tile_rows;
      keys = lists.tokens;
      begin = max(column, first / 16 * 16);
      end = column + tile_rows <= lists.sinks ? begin : min(column + tile_rows + lists.window, lists.tokens);
    }
  }
  /// Position of the key in row r of the tile; negative if there is none.
  __device__ int position(int r) const {
    const int i = column + r;
    return i >= keys ? -1 : kept ? lists.kept_position(i) : i;
  }
  __device__ TileRows own() const {
    return kept ? TileRows{column,
                           0,
                           keys,
                           lists.sinks,
                           static_cast<unsigned>(lists.dilation),
                           lists.dilated_base}
                : TileRows{column, 0, keys};
  }
  /// The queries that count for the key in this row of the warp.
  __device__ RowRanges<1> ranges() const {
    return row_ranges<1>([&](int row) {
      const int s = position(warp_row() + row);
      if (s < 0) return Range{INT_MAX, INT_MAX};
      return Range{max(s, first), kept ? INT_MAX : s + lists.window + 1};
    });
  }

  const KeyLists& lists;
  bool kept;
  int first;  ///< position of the first query
  int split = 0;
  int column, keys;  ///< the first key's number in its list, and how many the list has
  int begin, end;    ///< the queries
};

/// dk and dv of the kept keys = their splits' sums, in order. A thread has four channels of one of the two.
template <typename T>
__global__ void __launch_bounds__(threads)
    sum_kernel(const __grid_constant__ Backward<T> x, std::int64_t count) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (index >= count) return;
  const KeyLists& lists = x.group.lists;
  const int width = 2 * x.p, i = static_cast<int>(index % (width / 4)) * 4;
  const std::int64_t row = index / (width / 4);
  const int j = static_cast<int>(row % x.splits.kept), sequence_head = static_cast<int>(row / x.splits.kept);
  const int b = sequence_head / x.group.count, h = x.group.head[sequence_head % x.group.count];
  const std::int64_t step = static_cast<std::int64_t>(x.splits.kept) * width;
  const float* from =
      x.partials + sequence_head * x.splits.splits * step + static_cast<std::int64_t>(j) * width + i;
  float4 sum = {};
#pragma unroll 4
  for (int split = x.splits.first_split(lists, j); split < x.splits.splits; ++split) {
    const float4 part = *reinterpret_cast<const float4*>(from + split * step);
    sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
  }
  Pack<T, 4> rounded;
  rounded.set(0, sum.x), rounded.set(1, sum.y), rounded.set(2, sum.z), rounded.set(3, sum.w);
  const HeadRows<T> to(i < x.p ? x.dk : x.dv, b, h);
  store(to.row(lists.kept_position(j)) + i % x.p, rounded);
}
template <typename T>
void add_splits(const Backward<T>& x, cudaStream_t stream) {
  if (x.splits.kept == 0 || x.splits.splits == 1) return;
  const std::int64_t count = std::int64_t{x.sequence_heads} * x.splits.kept * (2 * x.p / 4);
  sum_kernel<<<static_cast<unsigned>((count + threads - 1) / threads), threads, 0, stream>>>(x, count);
  check_launch("pattern_attention_backward");
}

}  // namespace ratplus::cuda::tiles
