// Operations of generation: penalties and bans on logits, the drawing of a token, log-probabilities of tokens. The
// conventions are those of kernels/operations.h. B rows, one a sequence; each row's result depends on that row alone.
#pragma once

#include <cstdint>

#include "kernels/operations.h"

namespace ratplus::operation {

/// l = (l > 0 ? l / factor : l factor) + addend for the M logits l at (row, token). At most one entry names a logit. An
/// addend of -infinity bans the token. On a GPU an entry outside the logits is skipped.
struct AdjustLogits {
  static constexpr const char* name = "adjust_logits";
  Tensor logits;          ///< [B, V] f32
  Tensor row, token;      ///< [M] i32
  Tensor factor, addend;  ///< [M] f32; factors are positive

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// tokens [B] i32 drawn from logits [B, V] f32, which are left alone. With temperature 0: the largest logit, the first
/// of equal ones. Else token j has the weight w_j = exp((l_j - max l) / temperature), and these are left out in turn:
///     top_k: the logits below the k-th largest (0: none);
///     top_p: all but the smallest set of largest logits whose weights are at least top_p of the sum that top_k left;
///            the largest stays in any case, and all stay with 1;
///     min_p: the weights below min_p (the largest is 1).
/// Equal logits stay or go together. The result is the first token, by id, at which the running sum of the weights that
/// are left exceeds uniform times their sum.
/// Weights count in whole units of 2^-40 of the largest (rounded down), so that sums are exact whatever their order; only
/// the exponential, in f32, differs between backends.
/// A row that holds NaN or +infinity, or -infinity alone, gives -1.
struct SampleTokens {
  static constexpr const char* name = "sample_tokens";
  static constexpr std::int64_t most_vocab = std::int64_t{1}
                                             << 22;  ///< V, at most: sums of weights stay below 2^63

  Tensor tokens;       ///< [B] i32
  Tensor logits;       ///< [B, V] f32
  Tensor temperature;  ///< [B] f32, finite, at least 0
  Tensor top_k;        ///< [B] i32, at least 0
  Tensor top_p;        ///< [B] f32, in [0, 1]
  Tensor min_p;        ///< [B] f32, in [0, 1]
  Tensor uniform;      ///< [B] f32, in [0, 1)

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Natural log-softmax in f32 of N rows of logits, at the labels and at the n largest logits of each row. The same token
/// has the same float in both. A row without a distribution (NaN or +infinity in it, or -infinity alone) gives NaN, and
/// tokens of -1.
struct ScoreTokens {
  static constexpr const char* name = "score_tokens";
  Tensor log_probability;  ///< [N] f32; 0 where the label is negative
  Tensor top_tokens =
      {};  ///< [N, n] i32, of the largest logits in descending order, equal ones by id; may be absent
  Tensor top_log_probability = {};  ///< [N, n] f32; absent where top_tokens is
  Tensor logits;                    ///< [N, V] f32 or C
  Tensor labels;                    ///< [N] i32

  /// n, at most V.
  std::int64_t tops() const { return top_tokens ? top_tokens.size(1) : 0; }
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

}  // namespace ratplus::operation
