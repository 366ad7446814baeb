// Pattern attention in float32, by tiles: the formulas and the lists of keys of pattern_attention_forward.cu and
// pattern_attention_backward.cu, with products by fused multiply-adds, whose inputs and sums are all float32.
//
// A block has 64 queries (or, for dk and dv, 64 keys) of a head and walks over tiles of 64 keys (queries). Its 128 threads stand 8 x 16:
// a thread has rows y + 8 i of the block and columns x + 16 j of a tile of scores, or channels 4 x .. 4 x + 3 of every 64 of a row. So it
// reads 12 vectors of four numbers for 128 multiply-adds, and what a row's scores become is read by the 16 lanes that wrote it.
// All sums have one order, whatever the other rows of a block are.
// Floor: 4 T P operations a query and head of dense attention forward, half of them masked, and 10 T P backward, over the rate of large
// products (51 TFLOP/s on an H200); the backward does 14 T P, since two kernels compute the scores.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/pattern_attention_backward.cuh"
#include "kernels/cuda/pattern_attention_forward.cuh"

namespace ratplus::cuda {
namespace {

using namespace tiles;

constexpr int lanes_x = 16, lanes_y = threads / lanes_x;
constexpr int own_rows = tile_rows / lanes_y,
              own_columns = tile_rows / lanes_x;  ///< of a thread, in a tile of scores
constexpr int score_pitch = tile_rows + 4;        ///< floats from row to row
constexpr int scores_bytes = tile_rows * score_pitch * 4;
template <int DP>
constexpr int float_pitch = row_bytes<DP, float> / 4;
template <int DP>
constexpr int tile_bytes = tile_rows* row_bytes<DP, float>;
template <int DP>
constexpr int own_channels = DP / lanes_x;  ///< of a thread, in a row

/// Scores take the place of a tile that is done with.
template <int DP>
constexpr int forward_bytes = 3 * tile_bytes<DP>;
template <int DP>
constexpr int queries_bytes = 4 * tile_bytes<DP>;
template <int DP>
constexpr int keys_bytes = 4 * tile_bytes<DP> + scores_bytes;
static_assert(scores_bytes <= tile_bytes<64>);

using Scores = float[own_rows][own_columns];
template <int DP>
using RowSums = float[own_rows][own_channels<DP>];

__device__ __forceinline__ int lane_x() {
  return static_cast<int>(threadIdx.x) % lanes_x;
}
__device__ __forceinline__ int lane_y() {
  return static_cast<int>(threadIdx.x) / lanes_x;
}
/// The row of a tile that is a thread's i-th, and the column that is its j-th.
__device__ __forceinline__ int row_of(int i) {
  return lane_y() + lanes_y * i;
}
__device__ __forceinline__ int column_of(int j) {
  return lane_x() + lanes_x * j;
}
/// The first of the thread's g-th four channels.
__device__ __forceinline__ int channel_of(int g) {
  return 4 * lane_x() + 64 * g;
}
/// A score as it is compared, rounded: in a multiplication and addition at once it would differ from the largest score by a
/// rounding, in every tile again.
__device__ __forceinline__ float scaled(float product, float scale) {
  return __fmul_rn(product, scale);
}
__device__ __forceinline__ float4 four(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}

/// scores = (rows of a) (rows of b)^T. Channels are added up from the first to the last.
template <int DP>
__device__ __forceinline__ void multiply_rows(Scores& scores, const float* a, const float* b) {
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
#pragma unroll
    for (int j = 0; j < own_columns; ++j) scores[i][j] = 0;
  }
  a += row_of(0) * float_pitch<DP>, b += column_of(0) * float_pitch<DP>;
#pragma unroll 4
  for (int c = 0; c < DP; c += 4) {
    float4 right[own_columns];
#pragma unroll
    for (int j = 0; j < own_columns; ++j) right[j] = four(b + j * lanes_x * float_pitch<DP> + c);
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
      const float4 left = four(a + i * lanes_y * float_pitch<DP> + c);
#pragma unroll
      for (int j = 0; j < own_columns; ++j) {
        scores[i][j] = fmaf(left.x, right[j].x, scores[i][j]);
        scores[i][j] = fmaf(left.y, right[j].y, scores[i][j]);
        scores[i][j] = fmaf(left.z, right[j].z, scores[i][j]);
        scores[i][j] = fmaf(left.w, right[j].w, scores[i][j]);
      }
    }
  }
}

/// sums += (scores in shared memory) (rows of b).
template <int DP>
__device__ __forceinline__ void add_weighted_rows(RowSums<DP>& sums, const float* scores, const float* b) {
  scores += row_of(0) * score_pitch, b += channel_of(0);
#pragma unroll 2
  for (int s = 0; s < tile_rows; s += 4) {
    float4 left[own_rows];
#pragma unroll
    for (int i = 0; i < own_rows; ++i) left[i] = four(scores + i * lanes_y * score_pitch + s);
#pragma unroll
    for (int u = 0; u < 4; ++u) {
#pragma unroll
      for (int g = 0; g < DP / 64; ++g) {
        const float4 right = four(b + (s + u) * float_pitch<DP> + 64 * g);
#pragma unroll
        for (int i = 0; i < own_rows; ++i) {
          const float weight = u == 0 ? left[i].x : u == 1 ? left[i].y : u == 2 ? left[i].z : left[i].w;
          sums[i][4 * g] = fmaf(weight, right.x, sums[i][4 * g]);
          sums[i][4 * g + 1] = fmaf(weight, right.y, sums[i][4 * g + 1]);
          sums[i][4 * g + 2] = fmaf(weight, right.z, sums[i][4 * g + 2]);
          sums[i][4 * g + 3] = fmaf(weight, right.w, sums[i][4 * g + 3]);
        }
      }
    }
  }
}

__device__ __forceinline__ void keep_scores(float* to, const Scores& scores) {
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
#pragma unroll
    for (int j = 0; j < own_columns; ++j) to[row_of(i) * score_pitch + column_of(j)] = scores[i][j];
  }
}

/// The thread's channels of one of its rows, times a factor.
template <int DP>
__device__ __forceinline__ void store_row(float* row, const float (&sums)[own_channels<DP>], int p,
                                          float factor) {
#pragma unroll
  for (int g = 0; g < DP / 64; ++g) {
    if (channel_of(g) >= p) continue;
    *reinterpret_cast<float4*>(row + channel_of(g)) = float4{
        sums[4 * g] * factor, sums[4 * g + 1] * factor, sums[4 * g + 2] * factor, sums[4 * g + 3] * factor};
  }
}

/// The keys of a query in a tile's list: a window's by their position, kept ones by their number.
__device__ __forceinline__ Range keys_of(const QueryBlock<1>& block, int t, bool in_window) {
  t = min(t, block.lists.tokens - 1);
  return in_window ? Range{t - block.lists.window, t + 1} : Range{0, block.lists.kept_of(t)};
}
/// Whether all queries of the block have all keys of the tile, or those of its list at `column`.
__device__ __forceinline__ bool all_count(const QueryBlock<1>& block, int column, bool in_window) {
  const Range first = keys_of(block, block.begin, in_window), last = keys_of(block, block.end - 1, in_window);
  return column >= last.begin && column + tile_rows <= first.end;
}

template <int DP>
__global__ void __launch_bounds__(threads, DP == 64 ? 3 : 2)
    forward_kernel(const __grid_constant__ Forward<float> x) {
  extern __shared__ __align__(16) float memory[];
  const KeyLists& lists = x.group.lists;
  const int last_block = (lists.tokens - 1) / tile_rows, blocks = last_block - x.first / tile_rows + 1;
  const int sequence_head = static_cast<int>(blockIdx.x) / blocks;
  const int b = sequence_head / x.group.count, h = x.group.head[sequence_head % x.group.count];
  // The last queries have the most keys, and go first.
  const QueryBlock<1> block(lists, last_block - static_cast<int>(blockIdx.x) % blocks, x.first);
  const HeadRows<float> k(x.k, b, x.map.key(h)), v(x.v, b, x.map.key(h));
  const std::uint32_t shared = shared_address(memory);
  float *const q_rows = memory, *const k_rows = q_rows + tile_bytes<DP> / 4,
               *const v_rows = k_rows + tile_bytes<DP> / 4, *const weights = k_rows;

  load_rows<DP>(shared, HeadRows<float>(x.q, b, x.map.query(h)), x.p, block.own());
  float largest[own_rows], weight[own_rows] = {};
  RowSums<DP> values = {};
#pragma unroll
  for (float& l : largest) l = -INFINITY;
  for (int tile = 0; tile < block.tiles; ++tile) {
    __syncthreads();  // the tile before is done with
    block.load<DP>(tile, shared + tile_bytes<DP>, k, shared + 2 * tile_bytes<DP>, v, x.p);
    wait_for_copies();
    __syncthreads();
    Scores scores;
    multiply_rows<DP>(scores, q_rows, k_rows);
    __syncthreads();  // all warps have read the keys, whose place the weights take
    const bool in_window = block.is_window(tile);
    const int column = block.column(tile);
    const bool all = all_count(block, column, in_window);
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
      if (!all) {
        const Range range = keys_of(block, block.begin + row_of(i), in_window);
#pragma unroll
        for (int j = 0; j < own_columns; ++j) {
          if (!range.has(column + column_of(j))) scores[i][j] = -INFINITY;
        }
      }
      float now = largest[i];
#pragma unroll
      for (int j = 0; j < own_columns; ++j) {
        scores[i][j] = scaled(scores[i][j], x.scale);
        now = fmaxf(now, scores[i][j]);
      }
#pragma unroll
      for (int lane = 1; lane < lanes_x; lane *= 2) now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, lane));
      const float base = now == -INFINITY ? 0.0f : now;  // a row without keys so far
      const float shrink = expf(largest[i] - base);
      largest[i] = now;
      weight[i] *= shrink;
#pragma unroll
      for (float& value : values[i]) value *= shrink;
#pragma unroll
      for (int j = 0; j < own_columns; ++j) {
        scores[i][j] = expf(scores[i][j] - base);
        weight[i] += scores[i][j];
      }
    }
    keep_scores(weights, scores);
    __syncwarp();
    add_weighted_rows<DP>(values, weights, v_rows);
  }

  float* lse = x.lse + (static_cast<std::int64_t>(b) * x.heads + h) * x.queries - x.first;
  const HeadRows<float> out(x.out, b, h);
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
    const int t = block.begin + row_of(i);
#pragma unroll
    for (int lane = 1; lane < lanes_x; lane *= 2) weight[i] += __shfl_xor_sync(0xffffffffu, weight[i], lane);
    if (!block.has(t)) continue;
    store_row<DP>(out.row(t), values[i], x.p, 1 / weight[i]);
    if (lane_x() == 0) lse[t] = largest[i] + logf(weight[i]);
  }
}

/// delta and dq.
template <int DP>
__global__ void __launch_bounds__(threads, DP == 64 ? 3 : 1)
    queries_kernel(const __grid_constant__ Backward<float> x) {
  extern __shared__ __align__(16) float memory[];
  __shared__ float deltas[tile_rows];
  const KeyLists& lists = x.group.lists;
  const int last_block = (lists.tokens - 1) / tile_rows, blocks = last_block - x.first / tile_rows + 1;
  const int sequence_head = static_cast<int>(blockIdx.x) / blocks;
  const int b = sequence_head / x.group.count, h = x.group.head[sequence_head % x.group.count];
  // The last queries have the most keys, and go first.
  const QueryBlock<1> block(lists, last_block - static_cast<int>(blockIdx.x) % blocks, x.first);
  const HeadRows<float> k(x.k, b, x.map.key(h)), v(x.v, b, x.map.key(h));
  const std::uint32_t shared = shared_address(memory);
  float *const q_rows = memory, *const dout_rows = q_rows + tile_bytes<DP> / 4,
               *const k_rows = dout_rows + tile_bytes<DP> / 4, *const v_rows = k_rows + tile_bytes<DP> / 4,
               *const dscores = v_rows;
  const std::int64_t statistics = (static_cast<std::int64_t>(b) * x.heads + h) * x.queries;

  load_rows<DP>(shared, HeadRows<float>(x.q, b, x.map.query(h)), shared + tile_bytes<DP>,
                HeadRows<float>(x.dout, b, h), x.p, block.own());
  load_rows<DP>(shared + 2 * tile_bytes<DP>, HeadRows<float>(x.out, b, h), x.p, block.own());
  wait_for_copies();
  __syncthreads();
  // delta in the order of dout . v: for a query with one key, whose out is v, the score's gradient is then exactly zero.
  if (threadIdx.x < tile_rows) {
    const int row = static_cast<int>(threadIdx.x);
    float delta = 0;
    for (int c = 0; c < DP; c += 4) {
      const float4 left = four(dout_rows + row * float_pitch<DP> + c),
                   right = four(k_rows + row * float_pitch<DP> + c);
      delta = fmaf(left.x, right.x, delta), delta = fmaf(left.y, right.y, delta);
      delta = fmaf(left.z, right.z, delta), delta = fmaf(left.w, right.w, delta);
    }
    deltas[row] = delta;
    if (block.has(block.begin + row)) x.delta[statistics + block.begin + row] = delta;
  }
  float lse[own_rows];
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
    const int t = block.begin + row_of(i);
    lse[i] = block.has(t) ? x.lse[statistics + t] : 0.0f;
  }

  RowSums<DP> dq = {};
  for (int tile = 0; tile < block.tiles; ++tile) {
    __syncthreads();  // the tile before, or out, is done with
    block.load<DP>(tile, shared + 2 * tile_bytes<DP>, k, shared + 3 * tile_bytes<DP>, v, x.p);
    wait_for_copies();
    __syncthreads();
    Scores scores, gradients;
    multiply_rows<DP>(scores, q_rows, k_rows);
    multiply_rows<DP>(gradients, dout_rows, v_rows);
    __syncthreads();  // all warps have read the values, whose place the gradients take
    const bool in_window = block.is_window(tile);
    const int column = block.column(tile);
    const bool all = all_count(block, column, in_window);
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
      const Range range = keys_of(block, block.begin + row_of(i), in_window);
      const float delta = deltas[row_of(i)];
#pragma unroll
      for (int j = 0; j < own_columns; ++j) {
        const bool counts = all || range.has(column + column_of(j));
        const float w = counts ? expf(scaled(scores[i][j], x.scale) - lse[i]) : 0.0f;
        gradients[i][j] = w * (gradients[i][j] - delta);
      }
    }
    keep_scores(dscores, gradients);
    __syncwarp();
    add_weighted_rows<DP>(dq, dscores, k_rows);
  }
  const HeadRows<float> to(x.dq, b, h);
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
    const int t = block.begin + row_of(i);
    if (block.has(t)) store_row<DP>(to.row(t), dq[i], x.p, x.scale);
  }
}

/// dk and dv, or their sums over a split's queries.
template <int DP>
__global__ void __launch_bounds__(threads, DP == 64 ? 2 : 1)
    keys_kernel(const __grid_constant__ Backward<float> x) {
  extern __shared__ __align__(16) float memory[];
  const int blocks = x.key_blocks();
  // The last heads first: their queries are still in L2.
  const int sequence_head = x.sequence_heads - 1 - static_cast<int>(blockIdx.x) / blocks;
  const int b = sequence_head / x.group.count, h = x.group.head[sequence_head % x.group.count];
  const KeyBlock block(x.group.lists, x.splits, static_cast<int>(blockIdx.x) % blocks);
  if (block.begin >= block.end) return;

  const HeadRows<float> q(x.q, b, x.map.query(h)), dout(x.dout, b, h);
  const std::int64_t statistics = (static_cast<std::int64_t>(b) * x.heads + h) * x.queries;
  const std::uint32_t shared = shared_address(memory);
  float *const k_rows = memory, *const v_rows = k_rows + tile_bytes<DP> / 4,
               *const q_rows = v_rows + tile_bytes<DP> / 4, *const dout_rows = q_rows + tile_bytes<DP> / 4,
               *const weights = dout_rows + tile_bytes<DP> / 4;
  const int hk = x.map.key(h);
  load_rows<DP>(shared, HeadRows<float>(x.k, b, hk), shared + tile_bytes<DP>, HeadRows<float>(x.v, b, hk),
                x.p, block.own());
  Range queries_of_row[own_rows];
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
    const int s = block.position(row_of(i));
    queries_of_row[i] = s < 0 ? Range{0, 0}
                              : Range{max(s, block.first),
                                      block.kept ? block.end : min(s + block.lists.window + 1, block.end)};
  }

  RowSums<DP> dk = {}, dv = {};
  for (int t0 = block.begin; t0 < block.end; t0 += tile_rows) {
    __syncthreads();  // the tile before is done with
    load_rows<DP>(shared + 2 * tile_bytes<DP>, q, shared + 3 * tile_bytes<DP>, dout, x.p,
                  {t0, max(block.begin, x.first), block.end});
    float lse[own_columns], delta[own_columns];
#pragma unroll
    for (int j = 0; j < own_columns; ++j) {
      const int t = t0 + column_of(j);
      const bool there = t >= x.first && t < block.end;
      lse[j] = there ? x.lse[statistics + t] : 0.0f, delta[j] = there ? x.delta[statistics + t] : 0.0f;
    }
    wait_for_copies();
    __syncthreads();
    Scores scores;  // a row is a key, a column a query
    multiply_rows<DP>(scores, k_rows, q_rows);
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
#pragma unroll
      for (int j = 0; j < own_columns; ++j) {
        const bool counts = queries_of_row[i].has(t0 + column_of(j));
        scores[i][j] = counts ? expf(scaled(scores[i][j], x.scale) - lse[j]) : 0.0f;
      }
    }
    __syncwarp();  // what this warp wrote for the tile before is read
    keep_scores(weights, scores);
    __syncwarp();
    add_weighted_rows<DP>(dv, weights, dout_rows);
    Scores gradients;
    multiply_rows<DP>(gradients, v_rows, dout_rows);
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
#pragma unroll
      for (int j = 0; j < own_columns; ++j) gradients[i][j] = scores[i][j] * (gradients[i][j] - delta[j]);
    }
    __syncwarp();
    keep_scores(weights, gradients);
    __syncwarp();
    add_weighted_rows<DP>(dk, weights, q_rows);
  }

  const bool of_split = block.kept && x.splits.splits > 1;
  const HeadRows<float> to_dk(x.dk, b, h), to_dv(x.dv, b, h);
  const std::int64_t partial_rows =
      (static_cast<std::int64_t>(sequence_head) * x.splits.splits + block.split) * x.splits.kept;
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
    const int s = block.position(row_of(i));
    if (s < 0) continue;
    if (of_split) {
      float* to = x.partials + (partial_rows + block.column + row_of(i)) * 2 * x.p;
      store_row<DP>(to, dk[i], x.p, x.scale);
      store_row<DP>(to + x.p, dv[i], x.p, 1.0f);
    } else if (block.kept || !block.lists.keeps(s)) {
      store_row<DP>(to_dk.row(s), dk[i], x.p, x.scale);
      store_row<DP>(to_dv.row(s), dv[i], x.p, 1.0f);
    }
  }
}

/// Calls f(std::integral_constant<int, DP>) with 64 or 128, the smallest DP that holds P channels.
template <typename F>
void with_padded_floats(std::int64_t p, F&& f) {
  if (p <= 64) {
    f(std::integral_constant<int, 64>{});
  } else {
    f(std::integral_constant<int, 128>{});
  }
}

/// bytes_64, bytes_128: of shared memory, for P padded to 64 or 128.
bool are_taken(std::initializer_list<Tensor> tensors, std::int64_t bytes_64, std::int64_t bytes_128) {
  for (const Tensor& x : tensors) {
    if (x.dtype() != DType::f32 || x.size(3) % 4 != 0 || x.size(3) > 128 || !is_aligned(x)) return false;
  }
  return has_shared_memory(tensors.begin()->size(3) <= 64 ? bytes_64 : bytes_128);
}

template <typename Argument>
void launch(void (*kernel)(Argument), unsigned blocks, int bytes, const Argument& argument,
            cudaStream_t stream, const char* what) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), what);
  kernel<<<blocks, threads, bytes, stream>>>(argument);
  check_launch(what);
}

}  // namespace

bool takes_float32(const operation::AttentionForward& call) {
  return are_taken({call.q, call.k, call.v, call.out}, forward_bytes<64>, forward_bytes<128>);
}
bool takes_float32(const operation::AttentionBackward& call) {
  return are_taken({call.dq, call.dk, call.dv, call.dout, call.out, call.q, call.k, call.v}, keys_bytes<64>,
                   keys_bytes<128>);
}

void float32_attention_forward(cudaStream_t stream, const HeadGroup& group,
                               const operation::AttentionForward& call) {
  const std::int64_t first = call.first_query, queries = call.q.size(1);
  const Forward<float> x(call, group);
  const std::int64_t blocks = (first + queries - 1) / tile_rows - first / tile_rows + 1;
  with_padded_floats(x.p, [&](auto size) {
    constexpr int dp = decltype(size)::value;
    launch(forward_kernel<dp>, static_cast<unsigned>(call.q.size(0) * group.count * blocks),
           forward_bytes<dp>, x, stream, "float32_attention_forward");
  });
}

void float32_attention_backward(cudaStream_t stream, const HeadGroup& group,
                                const operation::AttentionBackward& call, const BackwardScratch& memory) {
  const char* what = "float32_attention_backward";
  Backward<float> x(call, memory);
  x.set(group, call.q.size(0), true);
  const auto heads = static_cast<unsigned>(x.sequence_heads);
  with_padded_floats(x.p, [&](auto size) {
    constexpr int dp = decltype(size)::value;
    launch(queries_kernel<dp>, heads * x.query_blocks(), queries_bytes<dp>, x, stream, what);
    if (x.key_blocks() > 0) launch(keys_kernel<dp>, heads * x.key_blocks(), keys_bytes<dp>, x, stream, what);
  });
  add_splits(x, stream);
}

}  // namespace ratplus::cuda
