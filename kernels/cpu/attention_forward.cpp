// Attention, forward: an online softmax (Milakov and Gimelshein, 2018) over the tiles of a head's attended
// keys.
#include <omp.h>

#include <limits>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/tile_gemm.h"

namespace ratplus::cpu {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// A list of keys, packed for the forward pass.
struct PackedList {
  KeyList list;
  std::int64_t begin;  ///< the first key
  float* k;            ///< [tiles, P, key_tile]
  float* v;            ///< [keys, padded P]
};

/// Running state of a block of queries: m, l [query_block] and the sum of values [query_block, padded P], all
/// relative to 2^m.
struct OnlineSoftmax {
  float *m, *l, *values;
};

/// Scores of one query against a tile become weights 2^(s - m), zero outside `columns`; the state follows.
void softmax_row(float* scores, std::int64_t n, KeyList::Range columns, float& m, float& l, float* values,
                 std::int64_t width) {
  std::fill(scores, scores + columns.begin, minus_infinity);
  std::fill(scores + columns.end, scores + n, minus_infinity);
  float largest = m;
#pragma omp simd reduction(max : largest)
  for (std::int64_t c = 0; c < n; ++c) largest = scores[c] > largest ? scores[c] : largest;
  if (largest > m) {
    const float shrink = exp2(m - largest);
    m = largest;
    l *= shrink;
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) values[i] *= shrink;
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < n; ++c) {
    const float weight = exp2(scores[c] - largest);
    scores[c] = weight;
    sum += weight;
  }
  l += sum;
}

class ForwardHead {
 public:
  ForwardHead(const AttentionSizes& sizes, const Pattern& pattern, HeadRows q, HeadRows k, HeadRows v,
              HeadRows out, float* lse, float* memory)
      : sizes_(sizes), pattern_(pattern), q_(q), k_(k), v_(v), out_(out), lse_(lse) {
    Carver carver(memory);
    const std::int64_t width = sizes.padded_dim();
    queries_ = carver.take(query_block * width);
    scores_ = carver.take(query_block * key_tile);
    state_ = {carver.take(query_block), carver.take(query_block), carver.take(query_block * width)};
    pack(Keys::kept, carver);
    if (!direct()) pack(Keys::windowed, carver);
  }

  static std::int64_t scratch_floats(const AttentionSizes& sizes) {
    const std::int64_t width = sizes.padded_dim();
    return query_block * (2 * width + key_tile + 2) + 2 * sizes.packed_keys() * width;
  }

  void block(std::int64_t index) {
    const std::int64_t first = sizes_.block_begin(index), count = sizes_.block_size(index);
    pack_block(queries_, q_, first, count, sizes_.head_dim, sizes_.scale() * log2_e);
    std::fill(state_.m, state_.m + count, minus_infinity);
    std::fill(state_.l, state_.l + count, 0.0f);
    std::fill(state_.values, state_.values + count * sizes_.padded_dim(), 0.0f);
    if (direct()) {
      for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t next = std::min(first + r + rows_ahead, sizes_.tokens - 1);
        for (const HeadRows* rows : {&k_, &v_, &out_}) prefetch(rows->row(next), sizes_.head_dim);
        direct_keys(first + r, r);
      }
    }
    for (std::size_t i = 0; i < lists_; ++i) {
      for_tiles(packed_[i].list, first, count,
                [&](const TileVisit& tile, const BlockRanges& ranges) { visit(packed_[i], tile, ranges); });
    }
    finish(first, count);
  }

 private:
  bool direct() const { return pattern_.window <= direct_window; }

  void pack(Keys which, Carver& carver) {
    const KeyList list(pattern_, which);
    const std::int64_t count = list.count_below(sizes_.tokens), p = sizes_.head_dim;
    // Keys that no query attends to are not read.
    const std::int64_t first = std::min(list.attended(sizes_.first).begin, count);
    const std::int64_t begin = first / key_tile * key_tile, tiles = (count - begin + key_tile - 1) / key_tile;
    float* const packed_k = carver.take(tiles * key_tile * p);
    float* const packed_v = carver.take((count - begin) * padded(p));
    pack_transposed(packed_k, k_, list, count, p, first);
    pack_rows(packed_v, v_, list, count, p, first);
    packed_[lists_++] = {list, begin, packed_k, packed_v};
  }

  /// The keys of a narrow window, by dot products; they come first, so they begin the state of query r.
  void direct_keys(std::int64_t t, std::int64_t r) {
    const std::int64_t p = sizes_.head_dim, width = sizes_.padded_dim();
    std::array<float, direct_window + 1> scores;
    std::size_t count = 0;
    float m = minus_infinity, l = 0;
    for_direct_keys(pattern_, t, [&](std::int64_t s) {
      scores[count] = dot(queries_ + r * width, k_.row(s), p);
      m = std::max(m, scores[count++]);
    });
    count = 0;
    for_direct_keys(pattern_, t, [&](std::int64_t s) {
      const float weight = exp2(scores[count++] - m);
      l += weight;
      add_scaled(state_.values + r * width, v_.row(s), weight, p);
    });
    state_.m[r] = m;
    state_.l[r] = l;
  }

  void visit(const PackedList& keys, const TileVisit& tile, const BlockRanges& ranges) {
    const std::int64_t p = sizes_.head_dim, width = sizes_.padded_dim(), n = padded(tile.keys);
    float* scores = scores_ + tile.first_row * key_tile;
    float* values = state_.values + tile.first_row * width;
    tile_gemm(scores, key_tile, queries_ + tile.first_row * width, width, Left::rows,
              keys.k + (tile.begin - keys.begin) * p, key_tile, tile.rows(), n, p, false);
    for (std::int64_t r = tile.first_row; r < tile.end_row; ++r) {
      const KeyList::Range columns = tile.columns(ranges, r);
      if (columns.begin >= columns.end) {
        std::fill(scores_ + r * key_tile, scores_ + r * key_tile + n, 0.0f);
      } else {
        softmax_row(scores_ + r * key_tile, n, columns, state_.m[r], state_.l[r], state_.values + r * width,
                    width);
      }
    }
    tile_gemm(values, width, scores, key_tile, Left::rows, keys.v + (tile.begin - keys.begin) * width, width,
              tile.rows(), width, tile.keys, true);
  }

  void finish(std::int64_t first, std::int64_t count) {
    for (std::int64_t r = 0; r < count; ++r) {
      set_scaled(out_.row(first + r), state_.values + r * sizes_.padded_dim(), 1.0f / state_.l[r],
                 sizes_.head_dim);
      lse_[first + r - sizes_.first] = (state_.m[r] + std::log2(state_.l[r])) * ln_2;
    }
  }

  const AttentionSizes& sizes_;
  Pattern pattern_;
  HeadRows q_, k_, v_, out_;
  float* lse_;  ///< [Tq]
  float *queries_, *scores_;
  OnlineSoftmax state_{};
  std::array<PackedList, 2> packed_{
      {{KeyList({}, Keys::kept), 0, nullptr, nullptr}, {KeyList({}, Keys::windowed), 0, nullptr, nullptr}}};
  std::size_t lists_ = 0;
};

}  // namespace

std::int64_t attention_forward_floats(const AttentionSizes& sizes) {
  return ForwardHead::scratch_floats(sizes);
}

void CpuOps::compute(const operation::AttentionForward& call) {
  const AttentionSizes sizes(call);
  const std::int64_t per_thread = attention_forward_floats(sizes);
  float* memory = scratch(per_thread * threads_, call.name);
  // Where there are few heads, several tasks share one, each with every parts-th block (late blocks have more
  // keys) and its own copy of the packed keys. A query's result does not depend on it.
  const std::int64_t heads = sizes.batch * sizes.heads, blocks = sizes.end_block() - sizes.first_block();
  const std::int64_t parts = std::clamp((2 * threads_ + heads - 1) / std::max<std::int64_t>(heads, 1),
                                        std::int64_t{1}, std::max<std::int64_t>(blocks, 1));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
  for (std::int64_t task = 0; task < heads * parts; ++task) {
    const std::int64_t b = task / parts / sizes.heads, h = task / parts % sizes.heads;
    const std::int64_t hk = sizes.key_head(h);
    ForwardHead head(sizes, pattern_of(call.patterns, h), {call.q, b, sizes.query_head(h), sizes.first},
                     {call.k, b, hk}, {call.v, b, hk}, {call.out, b, h, sizes.first},
                     call.lse.as<float>() + (b * sizes.heads + h) * sizes.queries(),
                     memory + omp_get_thread_num() * per_thread);
    for (std::int64_t block = sizes.first_block() + task % parts; block < sizes.end_block(); block += parts) {
      head.block(block);
    }
  }
}

}  // namespace ratplus::cpu
