// Attention with a sparsity pattern (docs/model.md, section 7) on the GPU: the launchers, and the key lists that the
// kernels walk.
//
// The query at t attends to two disjoint lists of keys, each in ascending position:
//     window   the positions t - W .. t, kept or not
//     kept     the sinks and dilated positions below t - W
// so that in both lists the keys of a query are one range [lo, hi), whose ends ascend with t: a tile of keys
// is masked at the ends of the ranges only, and a sub-tile that no row's range meets is skipped. The kept
// keys have a closed form, so nothing is stored for a pattern but its three numbers.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace ratplus::cuda {

class CausalAttention;  // causal_attention.h

/// AttentionForward and AttentionBackward for any pattern, once their arguments are checked; key_sums are left alone.
/// P <= 256. Dense heads go to `causal` where it is there and takes them. The backward's `scratch` holds pattern_attention_scratch
/// bytes. With first_query > 0 the backward leaves dk and dv of keys that no query attends to as they are.
void pattern_attention_forward(cudaStream_t stream, const operation::AttentionForward& call,
                               CausalAttention* causal);
void pattern_attention_backward(cudaStream_t stream, const operation::AttentionBackward& call, void* scratch);

/// The key lists of a pattern at T tokens.
struct KeyLists {
  KeyLists() = default;
  /// in_pieces: T decides how long the lists are, and nothing else.
  KeyLists(const Pattern& pattern, std::int64_t t, bool in_pieces = false) : tokens(static_cast<int>(t)) {
    if (pattern.dense()) return;  // every key
    if (!in_pieces && (pattern.sinks >= t || pattern.window >= t - 1)) return;
    dilation = static_cast<int>(pattern.dilation == Pattern::no_dilation ? t + 1
                                                                         : std::min(pattern.dilation, t + 1));
    window = static_cast<int>(std::min(pattern.window, most));
    sinks = static_cast<int>(std::min(pattern.sinks, most));
    undilated_sinks = sinks - sinks / dilation;
    dilated_base = static_cast<unsigned>(1 - undilated_sinks) * static_cast<unsigned>(dilation) - 1;
    shift = 31 + std::bit_width(static_cast<unsigned>(dilation) - 1);
    reciprocal =
        static_cast<std::uint32_t>((std::uint64_t{1} << shift) / static_cast<unsigned>(dilation) + 1);
  }

  /// No window: all keys of all queries are in the kept list.
  __host__ __device__ bool dense() const { return window < 0; }
  /// Whether s is in the kept list of the queries past s + W.
  __host__ __device__ bool keeps(int s) const {
    return s < sinks || divide_by_dilation(s + 1) * dilation == s + 1;
  }
  /// Kept positions below n.
  __host__ __device__ int kept_below(int n) const {
    return n <= sinks ? (n < 0 ? 0 : n) : divide_by_dilation(n) + undilated_sinks;
  }
  /// Position of kept key j < kept_below(T). Past the sinks it is (sinks / D + j - sinks + 1) D - 1; the
  /// products may exceed 32 bits, their sum does not.
  __host__ __device__ int kept_position(int j) const {
    return j < sinks
               ? j
               : static_cast<int>(static_cast<unsigned>(j) * static_cast<unsigned>(dilation) + dilated_base);
  }
  /// How many kept keys the query at t has; the window's are t - window .. t.
  __host__ __device__ int kept_of(int t) const { return kept_below(t - window); }

  /// n / D for n >= 0: with 2^(31 + l) / D rounded up, 2^l >= D, the error is below n 2^l / 2^(31 + l) < 1 in
  /// units of 1 / D (Granlund and Montgomery, 1994).
  __host__ __device__ int divide_by_dilation(int n) const {
    return static_cast<int>(static_cast<std::uint64_t>(n) * reciprocal >> shift);
  }

  friend bool operator==(const KeyLists&, const KeyLists&) = default;

  static constexpr std::int64_t most = 1 << 30;  ///< of W and I: beyond, they are any number of tokens

  int tokens = 0;                             ///< T
  int dilation = 1;                           ///< D; T + 1 without dilation
  int window = -1;                            ///< W; -1: no window list, the kept list has every key
  int sinks = 0;                              ///< I
  int undilated_sinks = 0;                    ///< sinks that the dilation would not keep
  std::uint32_t reciprocal = (1u << 31) + 1;  ///< of D, times 2^shift
  int shift = 31;
  unsigned dilated_base = 0;  ///< position of kept key j is j D + this, modulo 2^32, from j = I on
};

/// The heads of queries and of keys that a head reads, where heads share them: AttentionForward.
struct HeadMap {
  HeadMap() = default;
  HeadMap(const Tensor& out, const Tensor& q, const Tensor& k)
      : queries(static_cast<int>(q.size(2))), sharing(static_cast<int>(out.size(2) / k.size(2))) {}
  __host__ __device__ int query(int h) const { return h % queries; }
  __host__ __device__ int key(int h) const { return h / sharing; }

  int queries = 1, sharing = 1;
};

/// The heads of one launch, which have equal patterns. A kernel's parameter, hence of fixed size.
struct HeadGroup {
  static constexpr int most = 512;

  KeyLists lists;
  int count = 0;
  std::uint16_t head[most] = {};
};

/// Calls launch(HeadGroup) until all heads are done.
template <typename Launch>
void for_each_group(HeadPatterns patterns, std::int64_t heads, std::int64_t tokens, bool in_pieces,
                    Launch&& launch) {
  std::vector<KeyLists> todo;
  for (std::int64_t h = 0; h < heads; ++h) {
    todo.emplace_back(patterns[patterns.size() == 1 ? 0 : static_cast<std::size_t>(h)], tokens, in_pieces);
  }
  std::vector<bool> done(todo.size());
  for (std::size_t first = 0; first < todo.size(); ++first) {
    if (done[first]) continue;
    HeadGroup group;
    group.lists = todo[first];
    for (std::size_t h = first; h < todo.size() && group.count < HeadGroup::most; ++h) {
      if (done[h] || !(todo[h] == todo[first])) continue;
      group.head[group.count++] = static_cast<std::uint16_t>(h);
      done[h] = true;
    }
    launch(static_cast<const HeadGroup&>(group));
  }
}

/// How the queries of the kept keys' gradients are divided: tiles of 64 kept keys, whose queries come in
/// `splits` ranges of `length`. Each (tile, split) that has queries is one block; the splits' sums are added
/// in order.
struct KeptSplits {
  static constexpr int tile = 64;

  KeptSplits() = default;
  /// heads: of all sequences. Depends on nothing but its arguments, so that results do not depend on the GPU.
  KeptSplits(const KeyLists& lists, std::int64_t heads, int first_query)
      : kept(lists.kept_below(lists.tokens)), first(first_query) {
    tiles = (kept + tile - 1) / tile;
    set_splits(lists, 1);
    if (kept == 0) return;
    KeptSplits best = *this;
    std::int64_t lowest = best.cost(lists, heads);
    for (int n = 2; n <= 64 && std::int64_t{n} * kept <= lists.tokens; ++n) {
      set_splits(lists, n);
      const std::int64_t now = cost(lists, heads);
      if (now < lowest) best = *this, lowest = now;
    }
    *this = best;
  }

  __host__ __device__ int blocks() const { return tiles * splits; }
  /// The first split in which the kept key j's tile has queries: they begin at the tile's first key.
  __host__ __device__ int first_split(const KeyLists& lists, int j) const {
    const int position = lists.kept_position(j / tile * tile);
    return (position < first ? first : position) / length;
  }

  int kept = 0, tiles = 0, splits = 1;
  int length = tile;
  int first = 0;  ///< position of the first query

 private:
  void set_splits(const KeyLists& lists, int n) {
    length = std::max(((lists.tokens + n - 1) / n + tile - 1) / tile * tile, tile);
    splits = std::max((lists.tokens + length - 1) / length, 1);
  }
  /// A block's time in queries, times the rounds of blocks over the slots of an H100; a block's own costs and
  /// its partial sums count as some queries more.
  std::int64_t cost(const KeyLists& lists, std::int64_t heads) const {
    constexpr std::int64_t slots = 264, of_partials = 128;
    std::int64_t blocks_with_queries = 0;
    for (int i = 0; i < tiles; ++i) blocks_with_queries += splits - first_split(lists, i * tile);
    return (blocks_with_queries * heads + slots - 1) / slots * (length + (splits > 1 ? of_partials : 0));
  }
};

/// Where the backward keeps what its kernels hand on.
struct BackwardScratch {
  BackwardScratch(void* memory, std::int64_t queries)
      : delta(static_cast<float*>(memory)), partials(delta + padded(queries)) {}
  static std::int64_t padded(std::int64_t queries) { return (queries + 63) / 64 * 64; }

  float* delta;     ///< [B, H, Tq], dout . out
  float* partials;  ///< [B heads of the group, splits, kept keys, 2, P]: dk and dv of kept keys; <= 2 B T H P
};

/// Whether the kernels of pattern_attention_float32.cu take the call: float32, P a multiple of 4 and at most 128, rows aligned to 16
/// bytes, and a GPU with as much shared memory as they ask for.
bool takes_float32(const operation::AttentionForward& call);
bool takes_float32(const operation::AttentionBackward& call);
void float32_attention_forward(cudaStream_t stream, const HeadGroup& group,
                               const operation::AttentionForward& call);
void float32_attention_backward(cudaStream_t stream, const HeadGroup& group,
                                const operation::AttentionBackward& call, const BackwardScratch& memory);

/// The same for any P <= 256, any alignment, bf16 or f32, on the units that are not tensor cores. delta: f32 [B, H, Tq].
void simt_attention_forward(cudaStream_t stream, const HeadGroup& group,
                            const operation::AttentionForward& call);
void simt_attention_backward(cudaStream_t stream, const HeadGroup& group,
                             const operation::AttentionBackward& call, float* delta);

}  // namespace ratplus::cuda
