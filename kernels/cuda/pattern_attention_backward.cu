// Pattern attention, backward. The weights are computed again from lse: w = exp(s - lse). With
// delta_t = dout_t . out_t,
//     dv_s += w dout_t,             ds = w (dout_t . v_s - delta_t),
//     dq_t += ds k_s / sqrt(P),     dk_s += ds q_t / sqrt(P)
// (Dao et al., 2022, appendix B). No sum depends on the order in which blocks run:
//   queries_kernel   a block has 64 queries and walks over their keys as the forward does: delta, dq. With
//                    W = 0 a key that is not kept has but one query, its own, so this kernel gives its dk and
//                    dv as well.
//   keys_kernel      a block has 64 keys and walks over their queries: dk, dv. Either 64 neighbours with
//                    the queries that reach them through their window (W > 0), of which it writes the
//                    keys that are not kept; or 64 kept keys with all the queries t >= s. Kept keys can be
//                    few, with many queries each: then the queries are divided (KeptSplits), and each block
//                    writes float32 sums,
//   sum_kernel       which are added in order.
// So each row of dk and dv is written by one kernel.
// Floor in bytes: q, k, v, out, dout read and dq, dk, dv written once; with B = 2, T = 4096, H = 16, P = 128:
// 268 MB, 90 us. A tile of 64 kept keys reads q and dout once more (67 MB, 22 us for the first tile of each
// head; the others find them in L2).
#include <climits>
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/pattern_attention_backward.cuh"

namespace ratplus::cuda {
namespace {

using namespace tiles;

// --- queries -------------------------------------------------------------------------------------------

/// Two stages of a tile of keys and values, of which the second holds q and dout first; and a tile for out
/// first, and for what is written.
template <int DP>
constexpr int queries_shared_bytes = 5 * tile_elements<DP> * 2;

/// Elements (r, r) of a warp's 16 x 16 tile, for this lane's rows.
__device__ __forceinline__ void diagonal(const float (&c)[2][4], float& upper, float& lower) {
  const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4, from = lane / 4 * 4 + row / 2;
  upper = __shfl_sync(0xffffffffu, row % 2 == 0 ? c[0][0] : c[0][1], from);
  lower = __shfl_sync(0xffffffffu, row % 2 == 0 ? c[1][2] : c[1][3], from);
}

template <int DP>
__global__ void __launch_bounds__(threads, 2) queries_kernel(const __grid_constant__ Backward<bf16> x) {
  extern __shared__ __align__(16) bf16 memory[];
  const KeyLists& lists = x.group.lists;
  const int last_block = (lists.tokens - 1) / tile_rows, blocks = last_block - x.first / tile_rows + 1;
  const int sequence_head = static_cast<int>(blockIdx.x) / blocks;
  const int b = sequence_head / x.group.count, h = x.group.head[sequence_head % x.group.count];
  // The last queries have the most keys, and go first.
  const QueryBlock<1> block(lists, last_block - static_cast<int>(blockIdx.x) % blocks, x.first);
  const HeadRows<bf16> k(x.k, b, x.map.key(h)), v(x.v, b, x.map.key(h));
  constexpr std::uint32_t tile_bytes = tile_elements<DP> * 2;
  const std::uint32_t shared = shared_address(memory);
  const auto stage = [&](int tile) { return shared + tile % 2 * (2 * tile_bytes); };
  const auto load_keys = [&](int tile) {
    block.load<DP>(tile, stage(tile), k, stage(tile) + tile_bytes, v, x.p);
  };
  const int first_row = warp_row(), first = block.begin + first_row;
  bf16* staging = memory + 4 * tile_elements<DP> + first_row * pitch<DP>;

  load_rows<DP>(stage(1), HeadRows<bf16>(x.q, b, x.map.query(h)), stage(1) + tile_bytes,
                HeadRows<bf16>(x.dout, b, h), x.p, block.own());
  load_rows<DP>(shared + 4 * tile_bytes, HeadRows<bf16>(x.out, b, h), x.p, block.own());
  load_keys(0);
  const std::int64_t statistics = (static_cast<std::int64_t>(b) * x.heads + h) * x.queries;
  float lse[2], delta[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = first + upper_row() + 8 * i;
    lse[i] = block.has(t) ? x.lse[statistics + t] * log2_e : 0.0f;
  }
  wait_for_copies();
  __syncthreads();
  Fragment q[DP / 16], dout[DP / 16];
  load_left<DP>(q, stage(1) + first_row * pitch<DP> * 2);
  load_left<DP>(dout, stage(1) + tile_bytes + first_row * pitch<DP> * 2);
  // delta by the same products in the same order as dout . v: for a query with one key, whose out is v, the
  // score's gradient is then exactly zero.
  float products[2][4] = {};
  multiply_transposed<DP, 1>(products, dout, shared + 4 * tile_bytes + first_row * pitch<DP> * 2);
  diagonal(products, delta[0], delta[1]);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = first + upper_row() + 8 * i;
    if (threadIdx.x % 4 == 0 && block.has(t)) x.delta[statistics + t] = delta[i];
  }
  __syncthreads();  // the second stage is free; of the fifth tile a warp uses its own rows only

  const auto row_of_query = [&](int r) { return first + r; };
  const float factor = x.scale * log2_e;
  RowRanges<1> ranges = block.is_window(0) ? block.window_ranges() : block.kept_ranges();
  float dq[1][DP / 8][4] = {};
  for (int tile = 0; tile < block.tiles; ++tile) {
    if (tile > 0) {
      wait_for_copies();
      __syncthreads();  // the tile is there, and the one before is done with
    }
    if (tile + 1 < block.tiles) load_keys(tile + 1);
    if (tile == block.window_tiles) ranges = block.kept_ranges();
    const int column = block.column(tile);
    for_sub_tiles(ranges, column, [&](auto size, int row) {
      constexpr int n_sub = decltype(size)::value;
      const std::uint32_t rows = stage(tile) + row * pitch<DP> * 2;
      float scores[1][2 * n_sub][4] = {}, dscores[1][2 * n_sub][4] = {};
      multiply_transposed<DP, n_sub>(scores[0], q, rows, dscores[0], dout, rows + tile_bytes);
      mask<n_sub>(scores, ranges, column + row);
#pragma unroll
      for (int n = 0; n < 2 * n_sub; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          scores[0][n][e] = exp2_fast(fmaf(scores[0][n][e], factor, -lse[e / 2]));
          dscores[0][n][e] = scores[0][n][e] * (dscores[0][n][e] - delta[e / 2]);
        }
      }
      multiply<DP, 1, n_sub>(dq, dscores, rows);
      if constexpr (n_sub == 1) {
        if (lists.window == 0 && block.is_window(tile)) {  // the sub-tile of the warp's own keys
          const unsigned unkept =
              rows_where([&](int r) { return block.has(first + r) && !lists.keeps(first + r); });
          float upper, lower;
          diagonal(scores[0], upper, lower);
          stage_rows<DP>(staging, dout, upper, lower);
          store_rows<DP>(staging, HeadRows<bf16>(x.dv, b, h), x.p, unkept, row_of_query);
          diagonal(dscores[0], upper, lower);
          stage_rows<DP>(staging, q, upper * x.scale, lower * x.scale);
          store_rows<DP>(staging, HeadRows<bf16>(x.dk, b, h), x.p, unkept, row_of_query);
        }
      }
    });
  }
  stage_rows<DP>(staging, dq[0], x.scale, x.scale);
  store_rows<DP>(staging, HeadRows<bf16>(x.dq, b, h), x.p,
                 rows_where([&](int r) { return block.has(first + r); }), row_of_query);
}

// --- keys ----------------------------------------------------------------------------------------------

/// Keys and values, two stages of a tile of q and dout, and lse and delta for each stage.
template <int DP>
constexpr int keys_shared_bytes = 6 * tile_elements<DP> * 2 + 4 * tile_rows * 4;

template <int DP>
struct KeyGradients {
  float dk[1][DP / 8][4] = {};
  float dv[1][DP / 8][4] = {};
};

/// A warp's rows of dk and dv, float32, into the sums of a block's split.
template <int DP>
__device__ __forceinline__ void store_partials(const Backward<bf16>& x, const KeyBlock& block,
                                               int sequence_head, const KeyGradients<DP>& sums) {
  const std::int64_t rows =
      (static_cast<std::int64_t>(sequence_head) * x.splits.splits + block.split) * x.splits.kept;
  const int first = block.column + warp_row() + upper_row();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int j = first + 8 * i;
    if (j >= x.splits.kept) continue;
    float* to = x.partials + (rows + j) * 2 * x.p + first_column();
#pragma unroll
    for (int n = 0; n < DP / 8; ++n) {
      if (n * 8 >= x.p) break;
      *reinterpret_cast<float2*>(to + n * 8) = {sums.dk[0][n][2 * i] * x.scale,
                                                sums.dk[0][n][2 * i + 1] * x.scale};
      *reinterpret_cast<float2*>(to + x.p + n * 8) = {sums.dv[0][n][2 * i], sums.dv[0][n][2 * i + 1]};
    }
  }
}

template <int DP>
__global__ void __launch_bounds__(threads, 2) keys_kernel(const __grid_constant__ Backward<bf16> x) {
  extern __shared__ __align__(16) bf16 memory[];
  const KeyLists& lists = x.group.lists;
  const int blocks = x.splits.blocks() + x.window_blocks;
  // The last heads first: their queries are still in L2.
  const int sequence_head = x.sequence_heads - 1 - static_cast<int>(blockIdx.x) / blocks;
  const int b = sequence_head / x.group.count, h = x.group.head[sequence_head % x.group.count];
  const KeyBlock block(lists, x.splits, static_cast<int>(blockIdx.x) % blocks);
  if (block.begin >= block.end) return;

  constexpr std::uint32_t tile_bytes = tile_elements<DP> * 2;
  const std::uint32_t shared = shared_address(memory);
  const HeadRows<bf16> q(x.q, b, x.map.query(h)), dout(x.dout, b, h);
  const std::int64_t statistics = (static_cast<std::int64_t>(b) * x.heads + h) * x.queries;
  const auto stage = [&](int tile) { return shared + (2 + tile % 2 * 2) * tile_bytes; };
  const auto stage_statistics = [&](int tile) { return 6 * tile_bytes + tile % 2 * (2 * tile_rows * 4); };
  const auto load_queries = [&](int tile) {
    const int t0 = block.begin + tile * tile_rows;
    load_rows<DP>(stage(tile), q, stage(tile) + tile_bytes, dout, x.p,
                  {t0, max(block.begin, x.first), block.end});
    // Half of the threads load lse, half delta.
    const int t = t0 + static_cast<int>(threadIdx.x) % tile_rows;
    const float* from = (threadIdx.x < tile_rows ? x.lse : x.delta) + statistics;
    const bool there = t >= x.first && t < block.end;
    copy_async_4(shared + stage_statistics(tile) + threadIdx.x * 4, from + (there ? t : x.first), there);
  };
  const int hk = x.map.key(h);
  load_rows<DP>(shared, HeadRows<bf16>(x.k, b, hk), shared + tile_bytes, HeadRows<bf16>(x.v, b, hk), x.p,
                block.own());
  load_queries(0);

  const int first_row = warp_row();
  const std::uint32_t k_rows = shared + first_row * pitch<DP> * 2, v_rows = k_rows + tile_bytes;
  const RowRanges<1> ranges = block.ranges();
  const float factor = x.scale * log2_e;
  KeyGradients<DP> sums;
  const int query_tiles = (block.end - block.begin + tile_rows - 1) / tile_rows;
  for (int tile = 0; tile < query_tiles; ++tile) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and the one before is done with
    if (tile + 1 < query_tiles) load_queries(tile + 1);
    const int t0 = block.begin + tile * tile_rows;
    for_sub_tiles(ranges, t0, [&](auto size, int row) {
      constexpr int n_sub = decltype(size)::value;
      const std::uint32_t rows = stage(tile) + row * pitch<DP> * 2;
      float scores[1][2 * n_sub][4] = {}, dscores[1][2 * n_sub][4] = {};  // a row is a key, a column a query
      multiply_transposed<DP, n_sub>(scores[0], k_rows, rows, dscores[0], v_rows, rows + tile_bytes);
      mask<n_sub>(scores, ranges, t0 + row);
      const float* statistics_row =
          reinterpret_cast<const float*>(reinterpret_cast<const char*>(memory) + stage_statistics(tile)) +
          row + first_column();
#pragma unroll
      for (int n = 0; n < 2 * n_sub; ++n) {
        const float2 lse = *reinterpret_cast<const float2*>(statistics_row + n * 8);
        const float2 delta = *reinterpret_cast<const float2*>(statistics_row + tile_rows + n * 8);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float &score = scores[0][n][e], &dscore = dscores[0][n][e];
          score = exp2_fast(fmaf(score, factor, -log2_e * (e % 2 == 0 ? lse.x : lse.y)));
          dscore = score * (dscore - (e % 2 == 0 ? delta.x : delta.y));
        }
      }
      multiply<DP, 1, n_sub>(sums.dv, scores, rows + tile_bytes);
      multiply<DP, 1, n_sub>(sums.dk, dscores, rows);
    });
  }

  if (block.kept && x.splits.splits > 1) return store_partials<DP>(x, block, sequence_head, sums);
  // A warp's rows of the keys are its own, and done with.
  const auto position = [&](int r) { return block.position(first_row + r); };
  const unsigned wanted =
      rows_where([&](int r) { return position(r) >= 0 && (block.kept || !lists.keeps(position(r))); });
  bf16* staging = memory + first_row * pitch<DP>;
  __syncwarp();
  stage_rows<DP>(staging, sums.dk[0], x.scale, x.scale);
  store_rows<DP>(staging, HeadRows<bf16>(x.dk, b, h), x.p, wanted, position);
  stage_rows<DP>(staging, sums.dv[0], 1.0f, 1.0f);
  store_rows<DP>(staging, HeadRows<bf16>(x.dv, b, h), x.p, wanted, position);
}

// --- launches ------------------------------------------------------------------------------------------

template <int DP>
void launch_kernels(cudaStream_t stream, const Backward<bf16>& x) {
  const char* what = "pattern_attention_backward";
  constexpr auto limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
  constexpr int queries_bytes = queries_shared_bytes<DP>, keys_bytes = keys_shared_bytes<DP>;
  check_cuda(cudaFuncSetAttribute(queries_kernel<DP>, limit, queries_bytes), what);
  check_cuda(cudaFuncSetAttribute(keys_kernel<DP>, limit, keys_bytes), what);
  const auto heads = static_cast<unsigned>(x.sequence_heads);
  queries_kernel<DP><<<heads * x.query_blocks(), threads, queries_bytes, stream>>>(x);
  check_launch(what);
  if (x.key_blocks() == 0) return;
  keys_kernel<DP><<<heads * x.key_blocks(), threads, keys_bytes, stream>>>(x);
  check_launch(what);
  add_splits(x, stream);
}

bool on_tensor_cores(const operation::AttentionBackward& call) {
  bool fast = true;
  for (const Tensor& tensor : {call.dq, call.dk, call.dv, call.dout, call.out, call.q, call.k, call.v}) {
    fast = fast && takes(tensor);
  }
  with_padded_dim(call.q.size(3), [&](auto dp) {
    constexpr int size = decltype(dp)::value;
    fast = fast && has_shared_memory(std::max(queries_shared_bytes<size>, keys_shared_bytes<size>));
  });
  return fast;
}

}  // namespace

void pattern_attention_backward(cudaStream_t stream, const operation::AttentionBackward& call,
                                void* scratch) {
  if (call.q.numel() == 0) return;
  const std::int64_t batch = call.q.size(0);
  const BackwardScratch memory(scratch, call.lse.numel());
  const bool fast = on_tensor_cores(call), float32 = takes_float32(call);
  for_each_group(call.patterns, call.out.size(2), call.k.size(1), false, [&](const HeadGroup& group) {
    if (float32) return float32_attention_backward(stream, group, call, memory);
    if (!fast) return simt_attention_backward(stream, group, call, memory.delta);
    Backward<bf16> x(call, memory);
    x.set(group, batch, false);
    with_padded_dim(call.q.size(3), [&](auto size) { launch_kernels<decltype(size)::value>(stream, x); });
  });
}

std::int64_t pattern_attention_scratch(const OpShapes& shapes) {
  if (shapes.forward_only) return 0;
  const std::int64_t queries = shapes.batch * shapes.heads * shapes.tokens;
  // Where heads share keys: dk and dv of each, in the compute type, which has at most 4 bytes.
  const std::int64_t of_heads = shapes.shares_keys() ? 2 * queries * shapes.head_dim : 0;
  return (BackwardScratch::padded(queries) + 2 * queries * shapes.head_dim + of_heads) * 4;
}

}  // namespace ratplus::cuda
