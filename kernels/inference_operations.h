// Operations of inference: products whose rows do not depend on their neighbours, the step of a mixer for one token a
// sequence, and the caches of keys and values. Conventions are those of kernels/operations.h.
//
// - A cache is a pool of pages, C [pages, M 2 E P]: of M heads the keys of E entries, then their values, within a page as the
//   backend likes it. A sequence's table names the pages of its entries in order, E a page; -1 where it has none. Which token
//   lies in which entry says kernels/cache_layout.h.
// - A call's bits for one sequence do not depend on the others of the batch, nor on their number.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cache_layout.h"
#include "kernels/operations.h"

namespace ratplus::operation {

/// Rearranges w [out, in] where it is, as row_product reads it; a GPU's products read it as it is.
struct PackWeight {
  static constexpr const char* name = "pack_weight";
  Tensor w;  ///< C, contiguous; bf16 on the CPU, too

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// y [N, out] = x [N, in] w^T of a packed w, or GELU of the product as rounded to y's type; a row's bits depend on that row
/// and on w alone. Where Ops::fuses_norm, x may be the rows before a norm, and y may be added to a residual.
struct RowProduct {
  static constexpr const char* name = "row_product";
  Tensor y;  ///< C or f32
  Tensor x;  ///< C
  Tensor
      w;  ///< C [out, in], as pack_weight left it; on the CPU bf16, too, with the bits of the same values in f32
  bool gelu = false;
  Tensor norm_weight =
      {};          ///< C [in], contiguous: x is f32, and its RMSNorm times this, rounded to C, is multiplied
  double eps = 0;  ///< of the norm
  Tensor residual = {};  ///< f32 [N, out]: takes y, as rounded, in addition, and y is left alone

  /// Limits of a norm before a GPU's product, or of a residual after it: rows, columns, and a divisor of the columns.
  static constexpr int most_normed_rows = 8, most_normed = 2048, norm_columns = 256;
  static constexpr bool norm_fits(std::int64_t rows, std::int64_t inner) {
    return rows <= most_normed_rows && inner % norm_columns == 0 && inner <= most_normed;
  }
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Products one after the other, each of what those before it left, with the bits of a call each: a GPU may make them in one
/// kernel, which brings the weights of the next while it makes the rows of one.
struct ProductChain {
  static constexpr const char* name = "product_chain";
  std::vector<RowProduct> products;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Pages of the heads of one layer under one pattern.
struct CachePages {
  Tensor pages;              ///< C [pages, M 2 E P]; rows may be strided
  std::int64_t entries = 0;  ///< E of a page: 8 or 16
  Tensor heads;              ///< i32 [M]: the heads of keys that it holds
  Pattern pattern;

  CacheLayout layout() const { return CacheLayout(pattern); }
};

/// Keys and values of one sequence's tokens [first, first + n) into its cache: those that a query after them attends to.
struct CacheAppend {
  static constexpr const char* name = "cache_append";
  CachePages cache;
  Tensor table;            ///< i32 [pages of the sequence at most]
  Tensor k, v;             ///< C [n, heads, P], of all heads
  std::int64_t first = 0;  ///< position of the first token

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// The other way: k, v [tokens, heads, P] at the positions before `first` that a query from `first` on attends to; other
/// rows are left alone.
struct CacheGather {
  static constexpr const char* name = "cache_gather";
  Tensor k, v;
  CachePages cache;
  Tensor table;
  std::int64_t first = 0;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// One token of each sequence through a mixer, between its projections: gate, recurrence, RoPE, attention over the cache
/// and the token itself, output gate, and the token's place in the cache (docs/model.md, section 19).
///     g = sigmoid(f + gate_bias);  k~ = g k~ + (1 - g) k, v~ the same (0 before where t mod chunk = 0);
///     a = attention of RoPE(q) over the cache and RoPE(k~), v~;  z = a sigmoid(o)
/// Heads of q, k, o and z as in RecurrenceForward and AttentionForward: head h reads queries of head h mod Hq and keys of
/// head floor(h / (H / Hk)); head j of the Hk keys reads k of head j mod G. Where the heads of a layer have several
/// patterns, each is a call of its own; a key that several calls read keeps its state in the last.
struct MixerStep {
  static constexpr const char* name = "mixer_step";
  Tensor z;               ///< [B, H, P] C; heads of this call alone are written
  Tensor o = {};          ///< [B, H, P] C; absent: no output gate
  Tensor q = {}, k = {};  ///< [B, Hq, P], [B, G, P] C; absent: no attention, a = v~
  Tensor v;               ///< [B, Hk, P] C
  Tensor f = {};          ///< [B, Hk, P] C; absent: no recurrence
  Tensor gate_bias = {};  ///< [Hk, P] f32; absent: zero
  Tensor states = {};     ///< [slots, 2, Hk, P] f32, k~ and v~ after the last token; absent without f
  Tensor slots;  ///< i32 [B], a sequence's place in states and tables; -1: no sequence, the row is left alone
  Tensor positions;       ///< i32 [B], t
  Tensor rope = {};       ///< f32 [positions, 2, P/2]; absent without q
  CachePages cache = {};  ///< without pages where q is absent
  Tensor tables = {};     ///< i32 [slots, pages of a sequence at most]
  Tensor heads = {};      ///< i32 [n] of H, those of one key together; without q absent: all
  Tensor first_heads =
      {};  ///< i32 [M + 1]: heads [first_heads[m], first_heads[m + 1]) read key m of the cache
  std::int64_t chunk = 0;  ///< L; 0: the recurrence never restarts
  Tensor keeps_state =
      {};  ///< i32 [M]: 0 where a later call reads the state of this key too; absent: none does
  std::int64_t most_keys = 0;  ///< keys that a query of the call attends to at most, its own included
  /// Caches, states, slots, positions, tables, heads, gate_bias and rope were written before the last call that is no row
  /// product, chain of them, mixer step or norm: a GPU then reads them while the calls before this one are still running.
  bool at_rest = false;
  Tensor partials = {};  ///< f32 [at least partial_floats]: of a GPU; may be absent on the CPU
  Tensor arrivals = {};  ///< i32 [at least B M]: of a GPU; zero before the first call, and left zero

  /// A GPU cuts the keys of a long cache into parts of about so many, as the number of keys alone decides; the parts differ by
  /// one tile of keys at most.
  static constexpr std::int64_t short_keys = 16384, short_part = 256, long_part = 1024, part_tile = 32;
  RATPLUS_HOST_AND_DEVICE static std::int64_t part_of(std::int64_t keys) {
    return keys <= short_keys ? short_part : long_part;
  }
  RATPLUS_HOST_AND_DEVICE static std::int64_t parts_of(std::int64_t keys) {
    // A division by a constant takes a GPU no division.
    const std::int64_t parts =
        keys <= short_keys ? (keys + short_part / 2) / short_part : (keys + long_part / 2) / long_part;
    return parts > 1 ? parts : 1;
  }
  /// The first key of a part; of part parts_of(keys), the number of keys.
  RATPLUS_HOST_AND_DEVICE static std::int64_t part_begin(std::int64_t keys, std::int64_t part) {
    const std::int64_t tiles = (keys + part_tile - 1) / part_tile,
                       begin = tiles * part / parts_of(keys) * part_tile;
    return begin < keys ? begin : keys;
  }
  /// The most parts of any number of keys up to this one.
  static std::int64_t parts(std::int64_t keys) {
    return std::max(parts_of(std::min(keys, short_keys)), parts_of(keys));
  }
  /// Of `batch` sequences and `heads` heads that read the cache.
  static std::int64_t partial_floats(std::int64_t batch, std::int64_t heads, std::int64_t head_dim,
                                     std::int64_t keys) {
    return parts(keys) > 1 ? batch * heads * parts(keys) * (head_dim + 2) : 0;
  }

  bool attends() const { return !q.empty(); }
  bool gated() const { return !f.empty(); }
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

}  // namespace ratplus::operation

// clang-format off
#define RATPLUS_INFERENCE_OPERATIONS(X) X(PackWeight) X(RowProduct) X(ProductChain) X(CacheAppend) X(CacheGather) X(MixerStep)
// clang-format on
