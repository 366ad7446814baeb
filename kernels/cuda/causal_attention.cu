// CausalAttention on Hopper's tensor cores: out_t = sum over s <= t of softmax_s(q_t . k_s / sqrt(P)) v_s in bf16.
//
// A block has 128 queries of a head, 64 for each of two groups of 128 threads, and walks over tiles of 128 keys from its own down
// to the first, with an online softmax (Milakov and Gimelshein, 2018; Dao et al., 2022) in powers of two. Tiles begin at multiples
// of 128 positions, so that a query's sums are the same wherever its sequence is cut at such multiples. One thread fetches by TMA
// ahead of the products. A group multiplies the next tile's scores while it makes weights of this one's, and the two groups take
// turns, so that one has products under way while the other has exponentials (Shah et al., FlashAttention-3, 2024).
// There are as many blocks as processors; each takes the next 128 queries when it begins with its own, of some heads at a time those
// with the most keys first.
// Floor: 4 P operations a pair of query and key; the tiles on the diagonal have 1 / (2 T / 128) more of them.
#include "kernels/cuda/causal_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/pattern_attention_tiles.cuh"
#include "kernels/cuda/tensor_maps.h"
#include "kernels/cuda/wgmma.cuh"

namespace ratplus::cuda {
namespace {

constexpr int tile = 128;  ///< keys, and queries of a block
constexpr int multiplying_threads = 256, block_threads = multiplying_threads + 128;

struct Arguments {
  Rows<bf16> out;
  float* lse;  ///< [B, H, Tq]
  int heads;   ///< H
  HeadMap map;
  int first;     ///< position of the first query
  int tokens;    ///< T
  int pairs;     ///< of sequence and head
  int together;  ///< pairs whose keys and values the second-level cache holds
  int blocks;    ///< of 128 queries, a pair
  float scale;
  unsigned* counters;
  int count;  ///< heads of the group
  std::uint16_t head[HeadGroup::most];
};

template <int P>
struct Memory {
  static constexpr int slabs = P / slab, slab_bytes = tile * 128, operand = slabs * slab_bytes, stages = 2;
  static constexpr int pitch = P + 8;  ///< of rows of the output
  static constexpr int head = 1024;    ///< barriers; keeps the alignment of the swizzle
  static constexpr int queries = head, keys = queries + operand, values = keys + stages * operand,
                       output = values + stages * operand, bytes = output + tile * pitch * 2 + 1024;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// The queries of a block, by the order in which they are given out.
struct BlockQueries {
  int pair, block;
};
__device__ __forceinline__ BlockQueries queries_of(const Arguments& a, int index) {
  const int bunch = index / (a.together * a.blocks), first = bunch * a.together;
  const int here = min(a.together, a.pairs - first), rest = index - first * a.blocks;
  return {first + rest % here, (a.tokens - 1) / tile - rest / here};
}

/// Barriers in shared memory, and the number of the block's queries, negative behind the last.
struct Barriers {
  std::uint32_t base;
  __device__ std::uint32_t queries_full() const { return base; }
  __device__ std::uint32_t queries_empty() const { return base + 8; }
  __device__ std::uint32_t keys_full(int stage) const { return base + 16 + stage * 8; }
  __device__ std::uint32_t keys_empty(int stage) const { return base + 32 + stage * 8; }
  __device__ std::uint32_t values_full(int stage) const { return base + 48 + stage * 8; }
  __device__ std::uint32_t values_empty(int stage) const { return base + 64 + stage * 8; }
  __device__ std::uint32_t index() const { return base + 80; }
};

/// The stage that comes next, and the parity of its turn.
struct Turn {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == 2) stage = 0, parity ^= 1;
  }
};

/// By one thread: gives the block its queries, and fetches them and their keys and values.
template <int P>
__device__ __forceinline__ void fetch_all(const CUtensorMap& q, const CUtensorMap& k, const CUtensorMap& v,
                                          const Arguments& a, std::uint32_t base) {
  using M = Memory<P>;
  const Barriers barriers{base};
  wait_for_kernels_before();
  const int all = a.pairs * a.blocks;
  Turn turn;
  int index = static_cast<int>(blockIdx.x), parity = 1;
  bool used = false;
  for (bool first = true;; first = false) {
    int next = 0;
    if (index < all) next = static_cast<int>(gridDim.x + atomicAdd(a.counters, 1u));
    if (!first) wait_for_phase(barriers.queries_empty(), parity);
    parity ^= 1;
    asm volatile("st.shared.s32 [%0], %1;\n" ::"r"(barriers.index()), "r"(index < all ? index : -1)
                 : "memory");
    if (index >= all) return arrive(barriers.queries_full(), 0);
    const BlockQueries place = queries_of(a, index);
    const int sequence = place.pair / a.count, h = a.head[place.pair % a.count];
    const auto bring = [&](const CUtensorMap& map, int to, std::uint32_t full, int token, int head) {
      expect_bytes(full, M::operand);
      for (int i = 0; i < M::slabs; ++i)
        fetch(map, base + to + i * M::slab_bytes, full, i * slab, token, head, sequence);
    };
    bring(q, M::queries, barriers.queries_full(), place.block * tile - a.first, a.map.query(h));
    for (int j = place.block; j >= 0; --j) {
      if (used) wait_for_phase(barriers.keys_empty(turn.stage), turn.parity ^ 1);
      bring(k, M::keys + turn.stage * M::operand, barriers.keys_full(turn.stage), j * tile, a.map.key(h));
      if (used) wait_for_phase(barriers.values_empty(turn.stage), turn.parity ^ 1);
      bring(v, M::values + turn.stage * M::operand, barriers.values_full(turn.stage), j * tile, a.map.key(h));
      turn.next();
      used = used || turn.stage == 0;
    }
    index = next;
  }
}

/// The two groups begin their products in turns.
__device__ __forceinline__ void wait_for_turn(int group) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(2 + group), "n"(multiplying_threads) : "memory");
}
__device__ __forceinline__ void give_turn(int group) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(3 - group), "n"(multiplying_threads) : "memory");
}

/// scores [64, 128] = 64 rows of queries times a tile's keys.
template <int P>
__device__ __forceinline__ void multiply_keys(float (&scores)[tile / 2], std::uint32_t queries,
                                              std::uint32_t keys) {
  const std::uint64_t of_queries = describe(of_warp(queries)), of_keys = describe(of_warp(keys));
#pragma unroll
  for (int i = 0; i < P / slab; ++i) {
#pragma unroll
    for (int k = 0; k < slab / operand_k; ++k) {
      const int bytes = i * Memory<P>::slab_bytes + k * (operand_k * 2);
      const auto w = further(of_queries, bytes), x = further(of_keys, bytes);
      if (i == 0 && k == 0) {
        multiply_first(scores, w, x);
      } else {
        multiply<tile>(scores, w, x);
      }
    }
  }
}
/// sums [64, P] += weights [64, 128] times a tile's values.
template <int P>
__device__ __forceinline__ void multiply_values(float (&sums)[P / 2],
                                                const std::uint32_t (&weights)[tile / 16][4],
                                                std::uint32_t values) {
  const std::uint64_t of_values = describe_columns(of_warp(values), Memory<P>::slab_bytes);
#pragma unroll
  for (int k = 0; k < tile / operand_k; ++k)
    multiply<P>(sums, weights[k], further(of_values, k * (operand_k * 128)));
}

/// Of this lane's two rows, eight apart: the largest score, and relative to it the sum of this lane's weights.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY}, weight[2] = {};

  /// Scores become weights; returns by how much earlier sums shrink.
  __device__ __forceinline__ void take(float (&scores)[tile / 2], float factor, float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float now = largest[i];
#pragma unroll
      for (int n = 0; n < tile / 8; ++n)
        now = fmaxf(now, fmaxf(scores[4 * n + 2 * i], scores[4 * n + 2 * i + 1]));
      now = tiles::max_of_row(now);
      const float base = now * factor;  // finite: a row has its own key
      shrink[i] = exp2_fast(fmaf(largest[i], factor, -base));
      largest[i] = now;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < tile / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[4 * n + 2 * i + e];
          score = exp2_fast(fmaf(score, factor, -base));
          sum += score;
        }
      }
      weight[i] = fmaf(weight[i], shrink[i], sum);
    }
  }
};

/// Weights as the left factor of a product.
__device__ __forceinline__ void round_weights(std::uint32_t (&weights)[tile / 16][4],
                                              const float (&scores)[tile / 2]) {
#pragma unroll
  for (int k = 0; k < tile / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[k][i] = tiles::pack(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
  }
}

template <int P>
__device__ __forceinline__ void attend(const Arguments& a, char* memory, std::uint32_t base) {
  using M = Memory<P>;
  const Barriers barriers{base};
  const int thread = static_cast<int>(threadIdx.x) % 128, group = static_cast<int>(threadIdx.x) / 128;
  const int lane = thread % 32, row = thread / 32 * 16 + lane / 4;  // of the group's 64; and row + 8
  const std::uint32_t queries = base + M::queries + group * (operand_rows * 128);
  const float factor = a.scale * log2_e;
  auto* const staged =
      reinterpret_cast<bf16*>(memory + M::output) + (group * 64 + thread / 32 * 16) * M::pitch;
  Turn turn;
  int parity = 0;
  if (group == 1) give_turn(group);
  for (;; parity ^= 1) {
    wait_for_phase(barriers.queries_full(), parity);
    int index;
    asm volatile("ld.shared.s32 %0, [%1];\n" : "=r"(index) : "r"(barriers.index()) : "memory");
    if (index < 0) return;
    const BlockQueries place = queries_of(a, index);
    float scores[tile / 2] = {}, sums[P / 2] = {}, shrink[2];
    std::uint32_t weights[tile / 16][4];
    Softmax softmax;

    wait_for_phase(barriers.keys_full(turn.stage), turn.parity);
    wait_for_turn(group);
    begin_products();
    multiply_keys<P>(scores, queries, base + M::keys + turn.stage * M::operand);
    commit_products();
    give_turn(group);
    wait_for_products_but<0>();
    take_sums(scores);
    arrive(barriers.keys_empty(turn.stage), thread);
    if (place.block == 0) arrive(barriers.queries_empty(), thread);
#pragma unroll
    for (int n = 0; n < tile / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        // A key behind the query; the tile begins with the block's queries.
        if (8 * n + lane % 4 * 2 + e % 2 > group * 64 + row + e / 2 * 8) scores[4 * n + e] = -INFINITY;
      }
    }
    softmax.take(scores, factor, shrink);
    round_weights(weights, scores);

#pragma unroll 1
    for (int j = place.block - 1; j >= 0; --j) {
      const Turn before = turn;
      turn.next();
      wait_for_phase(barriers.keys_full(turn.stage), turn.parity);
      wait_for_turn(group);
      begin_products();
      multiply_keys<P>(scores, queries, base + M::keys + turn.stage * M::operand);
      commit_products();
      wait_for_phase(barriers.values_full(before.stage), before.parity);
      begin_products();
      multiply_values<P>(sums, weights, base + M::values + before.stage * M::operand);
      commit_products();
      give_turn(group);
      wait_for_products_but<1>();
      take_sums(scores);
      arrive(barriers.keys_empty(turn.stage), thread);
      if (j == 0) arrive(barriers.queries_empty(), thread);
      softmax.take(scores, factor, shrink);
      wait_for_products_but<0>();
      take_sums(sums);
      arrive(barriers.values_empty(before.stage), thread);
#pragma unroll
      for (int n = 0; n < P / 2; ++n) sums[n] *= shrink[n / 2 % 2];
      round_weights(weights, scores);
    }
    wait_for_phase(barriers.values_full(turn.stage), turn.parity);
    begin_products();
    multiply_values<P>(sums, weights, base + M::values + turn.stage * M::operand);
    commit_products();
    wait_for_products_but<0>();
    take_sums(sums);
    arrive(barriers.values_empty(turn.stage), thread);
    turn.next();

    // A warp's 16 rows through shared memory of its own.
    const int sequence = place.pair / a.count, h = a.head[place.pair % a.count];
    const int first_row = place.block * tile + group * 64 + thread / 32 * 16;
    const auto has = [&](int t) { return t >= a.first && t < a.tokens; };
    const float total[2] = {tiles::sum_of_row(softmax.weight[0]), tiles::sum_of_row(softmax.weight[1])};
    const float of_total[2] = {1 / total[0], 1 / total[1]};
    __syncwarp();
#pragma unroll
    for (int n = 0; n < P / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        *reinterpret_cast<std::uint32_t*>(staged + (lane / 4 + 8 * i) * M::pitch + n * 8 + lane % 4 * 2) =
            tiles::pack(sums[4 * n + 2 * i] * of_total[i], sums[4 * n + 2 * i + 1] * of_total[i]);
      }
    }
    __syncwarp();
    const HeadRows<bf16> out(a.out, sequence, h);
    constexpr int chunks = P / 8, at_once = 32 / chunks;
#pragma unroll
    for (int r = 0; r < 16; r += at_once) {
      const int of_warp = r + lane / chunks, channel = lane % chunks * 8;
      if (has(first_row + of_warp))
        store(out.row(first_row + of_warp) + channel, load<8>(staged + of_warp * M::pitch + channel));
    }
    if (lane % 4 == 0) {
      float* const lse =
          a.lse + (static_cast<std::int64_t>(sequence) * a.heads + h) * (a.tokens - a.first) - a.first;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int t = first_row + lane / 4 + 8 * i;
        if (has(t)) lse[t] = softmax.largest[i] * a.scale + logf(total[i]);
      }
    }
  }
}

#endif

template <int P>
__global__ void __launch_bounds__(block_threads, 1)
    causal_attention_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
                            const __grid_constant__ CUtensorMap v, const __grid_constant__ Arguments a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char memory[];
  const std::uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const Barriers barriers{base};
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    init_barrier(barriers.queries_full());
    init_barrier(barriers.queries_empty(), 2);
    for (int stage = 0; stage < Memory<P>::stages; ++stage) {
      init_barrier(barriers.keys_full(stage));
      init_barrier(barriers.keys_empty(stage), 2);
      init_barrier(barriers.values_full(stage));
      init_barrier(barriers.values_empty(stage), 2);
    }
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= multiplying_threads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;\n");
    if (static_cast<int>(threadIdx.x) > multiplying_threads) return;
    fetch_all<P>(q, k, v, a, base);
    // The last block leaves the counters as it found them.
    if (atomicAdd(a.counters + 1, 1u) == gridDim.x - 1) {
      __threadfence();
      a.counters[0] = 0, a.counters[1] = 0;
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;\n");
    attend<P>(a, memory + (base - shared_address(memory)), base);
  }
#else
  __trap();  // CausalAttention::built() is false
#endif
}

}  // namespace

CausalAttention::CausalAttention() : maps_(std::make_unique<TensorMaps>()) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  check_cuda(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device),
             "asking for the GPU");
  counters_ = Buffer({DeviceKind::cuda, device}, 2 * static_cast<std::int64_t>(sizeof(unsigned)));
  const auto prepare = [](auto kernel, int bytes) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               "preparing causal attention");
  };
  prepare(causal_attention_kernel<64>, Memory<64>::bytes);
  prepare(causal_attention_kernel<128>, Memory<128>::bytes);
}

CausalAttention::~CausalAttention() = default;

bool CausalAttention::built() {
  return built_for_hopper(causal_attention_kernel<128>);
}

bool CausalAttention::takes(const operation::AttentionForward& call) {
  const auto p = call.q.size(3);
  return (p == 64 || p == 128) && tiles::takes(call.q) && tiles::takes(call.k) && tiles::takes(call.v) &&
         tiles::takes(call.out);
}

template <int P>
void CausalAttention::launch(const operation::AttentionForward& call, const HeadGroup& group,
                             cudaStream_t stream) {
  const std::int64_t first = call.first_query, tokens = call.k.size(1);
  constexpr std::int64_t cached_bytes = 32 << 20;  // of a second-level cache of 50 MB
  Arguments a{};
  a.out = Rows<bf16>(call.out, first);
  a.lse = call.lse.as<float>();
  a.heads = static_cast<int>(call.out.size(2));
  a.map = HeadMap(call.out, call.q, call.k);
  a.first = static_cast<int>(first), a.tokens = static_cast<int>(tokens);
  a.pairs = static_cast<int>(call.q.size(0) * group.count);
  a.together = static_cast<int>(std::clamp<std::int64_t>(cached_bytes / (tokens * P * 4), 1, a.pairs));
  a.blocks = static_cast<int>((tokens - 1) / tile - first / tile + 1);
  a.scale = 1.0f / std::sqrt(static_cast<float>(P));
  a.counters = static_cast<unsigned*>(counters_.data());
  a.count = group.count;
  std::copy_n(group.head, group.count, a.head);
  launch_overlapped(causal_attention_kernel<P>,
                    dim3(static_cast<unsigned>(std::min(a.pairs * a.blocks, multiprocessors_))),
                    dim3(block_threads), Memory<P>::bytes, stream, call.name, maps_->of_heads(call.q, tile),
                    maps_->of_heads(call.k, tile), maps_->of_heads(call.v, tile), a);
}

void CausalAttention::run(const operation::AttentionForward& call, const HeadGroup& group,
                          cudaStream_t stream) {
  if (call.q.size(3) == 64) {
    launch<64>(call, group, stream);
  } else {
    launch<128>(call, group, stream);
  }
}

}  // namespace ratplus::cuda
