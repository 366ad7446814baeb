// Attention, backward (docs/model.md, section 7). The weights are computed again from lse: w = exp(s - lse). With
// delta_t = dout_t . out_t,
//     dv_s += w dout_t,   ds = w (dout_t . v_s - delta_t),   dq_t += ds k_s / sqrt(P),   dk_s += ds q_t /
//     sqrt(P)
// (Dao et al., 2022, appendix B). One task does a whole head, blocks of queries in order, so that the sums
// over queries have one order.
#include <omp.h>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/tile_gemm.h"

namespace ratplus::cpu {
namespace {

/// A list of keys, packed for the backward pass, and their gradients.
struct PackedList {
  KeyList list;
  std::int64_t count;
  float *k_transposed, *v_transposed;  ///< [tiles, P, key_tile]
  float* k;                            ///< [count, padded P]
  float *dk, *dv;                      ///< [count, padded P]; dk / ln 2, as q is held times log2(e) / sqrt(P)
};

/// One head's inputs and gradients.
struct HeadTensors {
  HeadRows q, k, v, out, dout, dq;
  HeadRows dk, dv;   ///< where the sums over queries are kept: the call's key_sums where it has some
  const float* lse;  ///< [Tq]
  /// Whether dk and dv hold sums of earlier queries, and are to be handed on: in the packed lists' own unit.
  bool carried = false;
};

class BackwardHead {
 public:
  BackwardHead(const AttentionSizes& sizes, const Pattern& pattern, const HeadTensors& tensors, float* memory)
      : sizes_(sizes), pattern_(pattern), x_(tensors) {
    Carver carver(memory);
    const std::int64_t width = sizes.padded_dim();
    queries_ = carver.take(query_block * width);
    douts_ = carver.take(query_block * width);
    dqueries_ = carver.take(query_block * width);
    weights_ = carver.take(query_block * key_tile);
    dscores_ = carver.take(query_block * key_tile);
    lse_ = carver.take(query_block);
    delta_ = carver.take(query_block);
    pack(Keys::kept, carver);
    if (!direct()) pack(Keys::windowed, carver);
  }

  static std::int64_t scratch_floats(const AttentionSizes& sizes) {
    const std::int64_t width = sizes.padded_dim();
    return query_block * (3 * width + 2 * key_tile + 2) + 5 * sizes.packed_keys() * width;
  }

  void run() {
    if (!x_.carried && sizes_.first > 0) clear_unreached_keys();
    for (std::int64_t index = sizes_.first_block(); index < sizes_.end_block(); ++index) block(index);
    for (std::size_t i = 0; i < lists_; ++i) scatter(packed_[i]);
  }

 private:
  bool direct() const { return pattern_.window <= direct_window; }

  void pack(Keys which, Carver& carver) {
    const KeyList list(pattern_, which);
    const std::int64_t count = list.count_below(sizes_.tokens), p = sizes_.head_dim, width = padded(p);
    const std::int64_t rounded = (count + key_tile - 1) / key_tile * key_tile;
    PackedList packed{list,
                      count,
                      carver.take(rounded * p),
                      carver.take(rounded * p),
                      carver.take(count * width),
                      carver.take(count * width),
                      carver.take(count * width)};
    pack_transposed(packed.k_transposed, x_.k, list, count, p);
    pack_transposed(packed.v_transposed, x_.v, list, count, p);
    pack_rows(packed.k, x_.k, list, count, p);
    if (x_.carried) {
      pack_rows(packed.dk, x_.dk, list, count, p);
      pack_rows(packed.dv, x_.dv, list, count, p);
    } else {
      std::fill(packed.dk, packed.dk + count * width, 0.0f);
      std::fill(packed.dv, packed.dv + count * width, 0.0f);
    }
    packed_[lists_++] = packed;
  }

  /// Keys of a direct window begin with their own query, which may lie in an earlier piece.
  void clear_unreached_keys() {
    if (!direct()) return;
    for (std::int64_t s = 0; s < sizes_.first; ++s) {
      if (pattern_.keeps(s)) continue;
      for (const HeadRows* rows : {&x_.dk, &x_.dv})
        std::fill(rows->row(s), rows->row(s) + sizes_.head_dim, 0.0f);
    }
  }

  /// All that a block of queries gives: their dq, and their share of dk and dv.
  void block(std::int64_t index) {
    const std::int64_t first = sizes_.block_begin(index), count = sizes_.block_size(index),
                       p = sizes_.head_dim;
    const std::int64_t width = sizes_.padded_dim();
    pack_block(queries_, x_.q, first, count, p, sizes_.scale() * log2_e);
    pack_block(douts_, x_.dout, first, count, p, 1.0f);
    std::fill(dqueries_, dqueries_ + count * width, 0.0f);
    for (std::int64_t r = 0; r < count; ++r) {
      lse_[r] = x_.lse[first + r - sizes_.first] * log2_e;
      delta_[r] = dot(douts_ + r * width, x_.out.row(first + r), p);
    }
    if (direct()) {
      for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t next = std::min(first + r + rows_ahead, sizes_.tokens - 1);
        for (const HeadRows* rows : {&x_.k, &x_.v, &x_.dk, &x_.dv, &x_.dq}) prefetch(rows->row(next), p);
        direct_keys(first + r, r);
      }
    }
    for (std::size_t i = 0; i < lists_; ++i) {
      for_tiles(packed_[i].list, first, count,
                [&](const TileVisit& tile, const BlockRanges& ranges) { visit(packed_[i], tile, ranges); });
    }
    for (std::int64_t r = 0; r < count; ++r) {
      set_scaled(x_.dq.row(first + r), dqueries_ + r * width, sizes_.scale(), p);
    }
  }

  /// The keys of a narrow window. A key's first query is its own, which therefore sets dk and dv; later ones
  /// add.
  void direct_keys(std::int64_t t, std::int64_t r) {
    const std::int64_t p = sizes_.head_dim, width = sizes_.padded_dim();
    const float *q = queries_ + r * width, *dout = douts_ + r * width;
    for_direct_keys(pattern_, t, [&](std::int64_t s) {
      const float weight = exp2(dot(q, x_.k.row(s), p) - lse_[r]);
      const float dscore = weight * (dot(dout, x_.v.row(s), p) - delta_[r]);
      add_scaled(dqueries_ + r * width, x_.k.row(s), dscore, p);
      const auto into = s == t ? set_scaled : add_scaled;
      into(x_.dk.row(s), q, dscore * ln_2, p);
      into(x_.dv.row(s), dout, weight, p);
    });
  }

  void visit(const PackedList& keys, const TileVisit& tile, const BlockRanges& ranges) {
    const std::int64_t p = sizes_.head_dim, width = sizes_.padded_dim(), n = padded(tile.keys),
                       rows = tile.rows();
    const float* queries = queries_ + tile.first_row * width;
    const float* douts = douts_ + tile.first_row * width;
    float* weights = weights_ + tile.first_row * key_tile;
    float* dscores = dscores_ + tile.first_row * key_tile;
    tile_gemm(weights, key_tile, queries, width, Left::rows, keys.k_transposed + tile.begin * p, key_tile,
              rows, n, p, false);
    tile_gemm(dscores, key_tile, douts, width, Left::rows, keys.v_transposed + tile.begin * p, key_tile, rows,
              n, p, false);
    for (std::int64_t r = tile.first_row; r < tile.end_row; ++r) {
      softmax_row(weights_ + r * key_tile, dscores_ + r * key_tile, n, tile.columns(ranges, r), lse_[r],
                  delta_[r]);
    }
    tile_gemm(keys.dv + tile.begin * width, width, weights, key_tile, Left::columns, douts, width, tile.keys,
              width, rows, true);
    tile_gemm(keys.dk + tile.begin * width, width, dscores, key_tile, Left::columns, queries, width,
              tile.keys, width, rows, true);
    tile_gemm(dqueries_ + tile.first_row * width, width, dscores, key_tile, Left::rows,
              keys.k + tile.begin * width, width, rows, width, tile.keys, true);
  }

  /// Scores become weights and dout . v becomes the scores' gradient, both zero outside `columns`.
  static void softmax_row(float* scores, float* dscores, std::int64_t n, KeyList::Range columns, float lse,
                          float delta) {
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) {
      const float weight = exp2(scores[c] - lse);
      scores[c] = weight;
      dscores[c] = weight * (dscores[c] - delta);
    }
    for (float* row : {scores, dscores}) {
      std::fill(row, row + columns.begin, 0.0f);
      std::fill(row + columns.end, row + n, 0.0f);
    }
  }

  void scatter(const PackedList& keys) const {
    const std::int64_t p = sizes_.head_dim, width = sizes_.padded_dim();
    for (std::int64_t j = 0; j < keys.count; ++j) {
      const std::int64_t s = keys.list.position(j);
      set_scaled(x_.dk.row(s), keys.dk + j * width, x_.carried ? 1.0f : ln_2, p);
      set_scaled(x_.dv.row(s), keys.dv + j * width, 1.0f, p);
    }
  }

  const AttentionSizes& sizes_;
  Pattern pattern_;
  HeadTensors x_;
  float *queries_, *douts_, *dqueries_;  ///< [query_block, padded P]
  float *weights_, *dscores_;            ///< [query_block, key_tile]
  float *lse_, *delta_;                  ///< [query_block]
  std::array<PackedList, 2> packed_{
      {{KeyList({}, Keys::kept), 0, nullptr, nullptr, nullptr, nullptr, nullptr},
       {KeyList({}, Keys::windowed), 0, nullptr, nullptr, nullptr, nullptr, nullptr}}};
  std::size_t lists_ = 0;
};

}  // namespace

std::int64_t attention_backward_floats(const AttentionSizes& sizes) {
  const std::int64_t of_head = (BackwardHead::scratch_floats(sizes) + 15) / 16 * 16;
  return of_head + (sizes.sharing() > 1 ? 2 * sizes.tokens * sizes.head_dim : 0);
}

std::int64_t attention_scratch(const OpShapes& shapes, int threads) {
  const AttentionSizes sizes(shapes);
  return threads * std::max(attention_forward_floats(sizes),
                            shapes.forward_only ? 0 : attention_backward_floats(sizes));
}

namespace {

/// dk and dv of a head of keys: set by its first head, added to by the others that share it.
class KeyGradients {
 public:
  KeyGradients(const operation::AttentionBackward& call, std::int64_t b, std::int64_t key_head)
      : dk_(call.dk, b, key_head), dv_(call.dv, b, key_head), keys_(call.dk.size(1)), p_(call.dk.size(3)) {}

  /// unit(s): dk's, of the key at s.
  template <typename Unit>
  void take(const HeadRows& dk, const HeadRows& dv, Unit&& unit) {
    const auto into = first_ ? set_scaled : add_scaled;
    for (std::int64_t s = 0; s < keys_; ++s) {
      into(dk_.row(s), dk.row(s), unit(s), p_);
      into(dv_.row(s), dv.row(s), 1.0f, p_);
    }
    first_ = false;
  }

 private:
  HeadRows dk_, dv_;
  std::int64_t keys_, p_;
  bool first_ = true;
};

}  // namespace

void CpuOps::compute(const operation::AttentionBackward& call) {
  const AttentionSizes sizes(call);
  const std::int64_t per_thread = attention_backward_floats(sizes), first = sizes.first, p = sizes.head_dim;
  float* memory = scratch(per_thread * threads_, call.name);
  const bool carried = !call.key_sums.empty(), shared = sizes.sharing() > 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_)
  for (std::int64_t task = 0; task < sizes.batch * sizes.key_heads; ++task) {
    const std::int64_t b = task / sizes.key_heads, hk = task % sizes.key_heads;
    float* const of_thread = memory + omp_get_thread_num() * per_thread;
    float* const own = shared ? of_thread + per_thread - 2 * sizes.tokens * p : nullptr;  // [2, T, P]
    KeyGradients sums(call, b, hk);
    for (std::int64_t h = hk * sizes.sharing(); h < (hk + 1) * sizes.sharing(); ++h) {
      const Pattern& pattern = pattern_of(call.patterns, h);
      const HeadRows dk = carried  ? HeadRows(call.key_sums.select(2, 0), b, h)
                          : shared ? HeadRows(own, p)
                                   : HeadRows(call.dk, b, hk);
      const HeadRows dv = carried  ? HeadRows(call.key_sums.select(2, 1), b, h)
                          : shared ? HeadRows(own + sizes.tokens * p, p)
                                   : HeadRows(call.dv, b, hk);
      const HeadTensors tensors{{call.q, b, sizes.query_head(h), first},
                                {call.k, b, hk},
                                {call.v, b, hk},
                                {call.out, b, h, first},
                                {call.dout, b, h, first},
                                {call.dq, b, h, first},
                                dk,
                                dv,
                                call.lse.as<float>() + (b * sizes.heads + h) * sizes.queries(),
                                carried};
      BackwardHead(sizes, pattern, tensors, of_thread).run();
      // Keys of a packed list are held in key_sums divided by ln 2.
      if (carried) {
        sums.take(dk, dv, [&](std::int64_t s) {
          return pattern.window > direct_window || pattern.keeps(s) ? ln_2 : 1.0f;
        });
      } else if (shared) {
        sums.take(dk, dv, [](std::int64_t) { return 1.0f; });
      }
    }
  }
}

}  // namespace ratplus::cpu
