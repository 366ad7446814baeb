// What the forward and the backward of attention share: how a head's keys are packed and its queries walk
// over them.
//
// One head of one sequence is one task. Its keys are two lists (key_list.h), each packed into contiguous
// tiles of `key_tile` keys; queries come in blocks of `query_block`. Of the scores only one block x tile
// exists at a time (Dao et al., "FlashAttention", 2022), and blocks meet only those tiles that one of their
// queries attends to, so that the cost follows the number of attended keys. A window of at most
// `direct_window` is not packed at all: each query takes its few keys by dot products.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "kernels/cpu/key_list.h"
#include "kernels/cpu/simd.h"
#include "kernels/ops.h"

namespace ratplus::cpu {

inline constexpr std::int64_t key_tile = 64;
inline constexpr std::int64_t query_block = 128;
inline constexpr std::int64_t direct_window = 16;
// A head's rows lie H P elements apart: each pass over them prefetches this many rows ahead.
inline constexpr std::int64_t rows_ahead = 6;

// Scores are kept in powers of two: e^x = 2^(x log2 e).
inline constexpr float log2_e = std::numbers::log2e_v<float>;
inline constexpr float ln_2 = std::numbers::ln2_v<float>;

/// Rows [T, P] of one head, of positions `first` .. on.
struct HeadRows {
  HeadRows(const Tensor& tensor, std::int64_t b, std::int64_t h, std::int64_t first_position = 0)
      : data(tensor.as<float>() + b * tensor.stride(0) + h * tensor.stride(2)),
        stride(tensor.stride(1)),
        first(first_position) {}
  /// Of positions from 0 on, without gaps.
  HeadRows(float* rows, std::int64_t head_dim) : data(rows), stride(head_dim), first(0) {}
  float* row(std::int64_t t) const { return data + (t - first) * stride; }

  float* data;
  std::int64_t stride;
  std::int64_t first;
};

/// Sizes of a call, and what the tiles make of them.
struct AttentionSizes {
  /// Of a whole sequence.
  explicit AttentionSizes(const OpShapes& shapes)
      : batch(shapes.batch),
        tokens(shapes.tokens),
        heads(shapes.heads),
        query_heads(shapes.heads),
        key_heads(shapes.shares_keys() ? shapes.key_heads : shapes.heads),
        head_dim(shapes.head_dim) {}
  /// Of a call, the queries from first_query on, of first_query + Tq keys.
  template <typename Call>
  explicit AttentionSizes(const Call& call)
      : batch(call.out.size(0)),
        tokens(call.first_query + call.out.size(1)),
        first(call.first_query),
        heads(call.out.size(2)),
        query_heads(call.q.size(2)),
        key_heads(call.k.size(2)),
        head_dim(call.out.size(3)) {}

  /// The heads of q, and of k and v, that head h reads.
  std::int64_t query_head(std::int64_t h) const { return h % query_heads; }
  std::int64_t key_head(std::int64_t h) const { return h / sharing(); }
  /// How many heads read one head of keys.
  std::int64_t sharing() const { return heads / key_heads; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
  std::int64_t padded_dim() const { return padded(head_dim); }
  std::int64_t queries() const { return tokens - first; }
  /// Blocks of queries begin at multiples of query_block in the sequence, wherever its pieces do.
  std::int64_t first_block() const { return first / query_block; }
  std::int64_t end_block() const { return (tokens + query_block - 1) / query_block; }
  /// The first query of a block.
  std::int64_t block_begin(std::int64_t block) const { return std::max(block * query_block, first); }
  std::int64_t block_size(std::int64_t block) const {
    return std::min((block + 1) * query_block, tokens) - block_begin(block);
  }
  /// Keys of both lists, each in whole tiles.
  std::int64_t packed_keys() const { return tokens + 2 * key_tile; }

  std::int64_t batch;
  std::int64_t tokens;     ///< T, keys
  std::int64_t first = 0;  ///< position of the first query
  std::int64_t heads, query_heads, key_heads, head_dim;
};

/// The pattern of head h, of 1 or H patterns.
inline const Pattern& pattern_of(HeadPatterns patterns, std::int64_t h) {
  return patterns.size() == 1 ? patterns.front() : patterns[static_cast<std::size_t>(h)];
}

/// Hands out pieces of one thread's scratch, in whole cache lines.
class Carver {
 public:
  explicit Carver(float* memory) : next_(memory) {}
  float* take(std::int64_t floats) {
    float* piece = next_;
    next_ += (floats + 15) / 16 * 16;
    return piece;
  }

 private:
  float* next_;
};

/// Which keys of a list the queries of a block attend to.
struct BlockRanges {
  BlockRanges(const KeyList& list, std::int64_t first, std::int64_t count) : rows(count) {
    for (std::int64_t r = 0; r < count; ++r) of[static_cast<std::size_t>(r)] = list.attended(first + r);
  }
  /// Keys that any query of the block attends to; both ends ascend with the query.
  KeyList::Range all() const { return {of[0].begin, of[static_cast<std::size_t>(rows - 1)].end}; }

  std::int64_t rows;
  std::array<KeyList::Range, query_block> of;
};

/// One tile as one block meets it: the queries of the block that attend to some key of the tile lie in
/// [first_row, end_row); `keys` of the tile's keys matter.
struct TileVisit {
  TileVisit(const BlockRanges& ranges, std::int64_t tile_begin)
      : begin(tile_begin), keys(std::min(key_tile, ranges.all().end - tile_begin)), end_row(ranges.rows) {
    while (first_row < end_row && ranges.of[static_cast<std::size_t>(first_row)].end <= begin) ++first_row;
    while (end_row > first_row && ranges.of[static_cast<std::size_t>(end_row - 1)].begin >= begin + keys)
      --end_row;
  }
  std::int64_t rows() const { return end_row - first_row; }
  /// Columns of the tile that query r of the block attends to.
  KeyList::Range columns(const BlockRanges& ranges, std::int64_t r) const {
    const KeyList::Range& range = ranges.of[static_cast<std::size_t>(r)];
    return {std::clamp(range.begin - begin, std::int64_t{0}, keys),
            std::clamp(range.end - begin, std::int64_t{0}, keys)};
  }

  std::int64_t begin;
  std::int64_t keys;
  std::int64_t first_row = 0;
  std::int64_t end_row;
};

/// Calls visit(TileVisit, BlockRanges) for the tiles of a list that the queries [first, first + count) attend
/// to.
template <typename Visit>
void for_tiles(const KeyList& list, std::int64_t first, std::int64_t count, Visit&& visit) {
  const BlockRanges ranges(list, first, count);
  const KeyList::Range all = ranges.all();
  for (std::int64_t begin = all.begin / key_tile * key_tile; begin < all.end; begin += key_tile) {
    const TileVisit tile(ranges, begin);
    if (tile.rows() > 0) visit(tile, ranges);
  }
}

/// Calls take(s) for the keys that the query at t reaches through a direct window only.
template <typename Take>
void for_direct_keys(const Pattern& pattern, std::int64_t t, Take&& take) {
  for (std::int64_t s = std::max<std::int64_t>(t - pattern.window, 0); s <= t; ++s) {
    if (!pattern.keeps(s)) take(s);
  }
}

/// out [tiles, P, key_tile] = the rows of a list's keys from `first` on, transposed tile by tile, from its tile on; zeros
/// before the first key and past the last.
inline void pack_transposed(float* out, const HeadRows& in, const KeyList& list, std::int64_t count,
                            std::int64_t p, std::int64_t first = 0) {
  for (std::int64_t begin = first / key_tile * key_tile; begin < count; begin += key_tile) {
    float* tile = out + (begin - first / key_tile * key_tile) * p;
    const std::int64_t keys = std::min(key_tile, count - begin);
    if (keys < key_tile || begin < first) std::fill(tile, tile + key_tile * p, 0.0f);
    for (std::int64_t c = std::max(first - begin, std::int64_t{0}); c < keys; ++c) {
      const float* row = in.row(list.position(begin + c));
      for (std::int64_t i = 0; i < p; ++i) tile[i * key_tile + c] = row[i];
    }
  }
}

/// out [keys, padded P] = the rows of a list's keys from `first` on, from its tile on; zeros before.
inline void pack_rows(float* out, const HeadRows& in, const KeyList& list, std::int64_t count, std::int64_t p,
                      std::int64_t first = 0) {
  const std::int64_t width = padded(p), begin = first / key_tile * key_tile;
  std::fill(out, out + (first - begin) * width, 0.0f);
  for (std::int64_t j = first; j < count; ++j) {
    const float* row = in.row(list.position(j));
    float* packed = out + (j - begin) * width;
    std::copy(row, row + p, packed);
    std::fill(packed + p, packed + width, 0.0f);
  }
}

/// out [count, padded P] = scale times rows first, first + 1, ...
inline void pack_block(float* out, const HeadRows& in, std::int64_t first, std::int64_t count, std::int64_t p,
                       float scale) {
  const std::int64_t width = padded(p);
  for (std::int64_t r = 0; r < count; ++r) {
    const float* row = in.row(first + r);
    if (r + rows_ahead < count) prefetch(in.row(first + r + rows_ahead), p);
    float* packed = out + r * width;
#pragma omp simd
    for (std::int64_t i = 0; i < p; ++i) packed[i] = row[i] * scale;
    std::fill(packed + p, packed + width, 0.0f);
  }
}

inline float dot(const float* a, const float* b, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// y += factor x.
inline void add_scaled(float* __restrict y, const float* __restrict x, float factor, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

/// y = factor x.
inline void set_scaled(float* __restrict y, const float* __restrict x, float factor, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = factor * x[i];
}

// Floats of scratch of one thread.
std::int64_t attention_forward_floats(const AttentionSizes& sizes);
std::int64_t attention_backward_floats(const AttentionSizes& sizes);

}  // namespace ratplus::cpu
