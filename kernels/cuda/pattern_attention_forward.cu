// Pattern attention, forward: out_t = sum over s in A(t) of softmax_s(q_t . k_s / sqrt(P)) v_s.
//
// A block has 128 queries of a head, 32 a warp, and walks over the tiles of 64 keys of its two lists
// (pattern_attention.h) with an online softmax (Milakov and Gimelshein, 2018; Dao et al., 2022) in powers of
// two. Keys are gathered row by row with 16-byte asynchronous copies, one tile ahead of the products. Within
// a tile a warp skips the 16-key sub-tiles that none of its rows attends to, so that W = 0 costs 32 keys a
// warp, not 64. What bounds wide windows is the traffic of keys from L2 and in shared memory, hence 32 rows a
// warp: each key that it loads meets two tensor core tiles of queries.
// Floor in bytes: q, k, v read and out written once (a window reads each key from device memory once, then
// from L2); with B = 2, T = 4096, H = 16, P = 128: 134 MB, 45 us.
#include <cmath>

#include "kernels/cuda/causal_attention.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/pattern_attention_forward.cuh"

namespace ratplus::cuda {
namespace {

using namespace tiles;

constexpr int row_tiles = 2;  ///< of 16 queries, a warp
using Queries = QueryBlock<row_tiles>;

/// The queries, in whose place the output comes last; two stages of a tile of keys and values.
template <int DP>
constexpr int shared_bytes = (row_tiles + 4) * tile_elements<DP> * 2;

/// Running state of a lane's rows, eight apart: largest score, and relative to it the weights of this
/// lane's columns, and the warp's sum of values.
template <int DP>
struct OnlineSoftmax {
  static constexpr int rows = 2 * row_tiles;

  float largest[rows] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  float weight[rows] = {};
  float values[row_tiles][DP / 8][4] = {};

  /// Scores (in powers of two once times `factor`) become weights; the state follows.
  template <int N>
  __device__ __forceinline__ void add_scores(float (&scores)[row_tiles][2 * N][4], float factor) {
    float base[rows], now[rows];
    bool grows = false;
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      now[i] = largest[i];
#pragma unroll
      for (int n = 0; n < 2 * N; ++n) {
        const float(&score)[4] = scores[i / 2][n];
        now[i] = fmaxf(now[i], fmaxf(score[i % 2 * 2], score[i % 2 * 2 + 1]));
      }
      now[i] = max_of_row(now[i]);
      base[i] = now[i] == -INFINITY ? 0.0f : now[i] * factor;  // a row without keys so far
      grows = grows || now[i] > largest[i];
    }
    if (__any_sync(0xffffffffu, grows)) {
#pragma unroll
      for (int i = 0; i < rows; ++i) {
        const float shrink = exp2_fast(fmaf(largest[i], factor, -base[i]));
        weight[i] *= shrink;
#pragma unroll
        for (int n = 0; n < DP / 8; ++n) {
          values[i / 2][n][i % 2 * 2] *= shrink, values[i / 2][n][i % 2 * 2 + 1] *= shrink;
        }
        largest[i] = now[i];
      }
    }
#pragma unroll
    for (int n = 0; n < 2 * N; ++n) {
#pragma unroll
      for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          scores[m][n][e] = exp2_fast(fmaf(scores[m][n][e], factor, -base[2 * m + e / 2]));
          weight[2 * m + e / 2] += scores[m][n][e];
        }
      }
    }
  }
};

template <int DP>
__global__ void __launch_bounds__(threads, 2) forward_kernel(const __grid_constant__ Forward<bf16> x) {
  extern __shared__ __align__(16) bf16 memory[];
  const KeyLists& lists = x.group.lists;
  const int last_block = (lists.tokens - 1) / Queries::queries,
            blocks = last_block - x.first / Queries::queries + 1;
  const int sequence_head = static_cast<int>(blockIdx.x) / blocks;
  const int b = sequence_head / x.group.count, h = x.group.head[sequence_head % x.group.count];
  // The last queries have the most keys, and go first.
  const Queries block(lists, last_block - static_cast<int>(blockIdx.x) % blocks, x.first);
  const HeadRows<bf16> k(x.k, b, x.map.key(h)), v(x.v, b, x.map.key(h));
  const std::uint32_t shared = shared_address(memory);
  const auto stage = [&](int tile) { return shared + (row_tiles + tile % 2 * 2) * (tile_elements<DP> * 2); };
  const auto load_keys = [&](int tile) {
    block.template load<DP>(tile, stage(tile), k, stage(tile) + tile_elements<DP> * 2, v, x.p);
  };
  const int first_row = warp_row<row_tiles>(), first = block.begin + first_row;

  load_rows<DP, row_tiles>(shared, HeadRows<bf16>(x.q, b, x.map.query(h)), x.p, block.own());
  load_keys(0);
  RowRanges<row_tiles> ranges = block.is_window(0) ? block.window_ranges() : block.kept_ranges();
  const std::uint32_t q_rows = shared + first_row * pitch<DP> * 2;
  const float factor = x.scale * log2_e;
  OnlineSoftmax<DP> state;
  for (int tile = 0; tile < block.tiles; ++tile) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and the one before is done with
    if (tile + 1 < block.tiles) load_keys(tile + 1);
    if (tile == block.window_tiles) ranges = block.kept_ranges();
    const int column = block.column(tile);
    for_sub_tiles(ranges, column, [&](auto size, int row) {
      constexpr int n_sub = decltype(size)::value;
      const std::uint32_t rows = stage(tile) + row * pitch<DP> * 2;
      float scores[row_tiles][2 * n_sub][4] = {};
      multiply_transposed<DP, row_tiles, n_sub>(scores, q_rows, rows);
      mask<n_sub>(scores, ranges, column + row);
      state.template add_scores<n_sub>(scores, factor);
      multiply<DP, row_tiles, n_sub>(state.values, scores, rows + tile_elements<DP> * 2);
    });
  }

  // A warp's rows of the queries are its own, and done with.
  bf16* staging = memory + first_row * pitch<DP>;
  float* lse = x.lse + (static_cast<std::int64_t>(b) * x.heads + h) * x.queries - x.first;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
    const int first_of_tile = first + 16 * m;
    const float weight[2] = {sum_of_row(state.weight[2 * m]), sum_of_row(state.weight[2 * m + 1])};
    stage_rows<DP>(staging, state.values[m], 1 / weight[0], 1 / weight[1]);
    store_rows<DP>(staging, HeadRows<bf16>(x.out, b, h), x.p,
                   rows_where([&](int r) { return block.has(first_of_tile + r); }),
                   [&](int r) { return first_of_tile + r; });
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int t = first_of_tile + upper_row() + 8 * i;
      if (threadIdx.x % 4 == 0 && block.has(t)) {
        lse[t] = state.largest[2 * m + i] * x.scale + logf(weight[i]);
      }
    }
  }
}

void launch_forward(cudaStream_t stream, const HeadGroup& group, const operation::AttentionForward& call) {
  const std::int64_t p = call.q.size(3), first = call.first_query, queries = call.q.size(1);
  const std::int64_t blocks = (first + queries - 1) / Queries::queries - first / Queries::queries + 1;
  const Forward<bf16> arguments(call, group);
  with_padded_dim(p, [&](auto size) {
    constexpr int dp = decltype(size)::value;
    check_cuda(cudaFuncSetAttribute(forward_kernel<dp>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    shared_bytes<dp>),
               "pattern_attention_forward");
    forward_kernel<dp>
        <<<static_cast<unsigned>(call.q.size(0) * group.count * blocks), threads, shared_bytes<dp>, stream>>>(
            arguments);
  });
  check_launch("pattern_attention_forward");
}

}  // namespace

void pattern_attention_forward(cudaStream_t stream, const operation::AttentionForward& call,
                               CausalAttention* causal) {
  if (call.out.numel() == 0) return;
  const bool by_causal = causal != nullptr && CausalAttention::takes(call);
  bool fast = takes(call.q) && takes(call.k) && takes(call.v) && takes(call.out);
  with_padded_dim(call.q.size(3),
                  [&](auto dp) { fast = fast && has_shared_memory(shared_bytes<decltype(dp)::value>); });
  const bool float32 = takes_float32(call);
  for_each_group(call.patterns, call.out.size(2), call.k.size(1), call.in_pieces,
                 [&](const HeadGroup& group) {
                   if (by_causal && group.lists.dense()) {
                     causal->run(call, group, stream);
                   } else if (fast) {
                     launch_forward(stream, group, call);
                   } else if (float32) {
                     float32_attention_forward(stream, group, call);
                   } else {
                     simt_attention_forward(stream, group, call);
                   }
                 });
}

}  // namespace ratplus::cuda
