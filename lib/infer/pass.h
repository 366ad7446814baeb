// Pass: rows of tokens of many sequences through the model at once, prompts in pieces beside steps of one token each
// (docs/model.md, section 19). A sequence's bits do not depend on its neighbours, nor on where its prompt is cut, if that is
// at multiples of prompt_cut.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/infer/caches.h"
#include "lib/infer/weights.h"

namespace ratplus::infer {

/// Tokens of a prompt lie in blocks of this many, from its beginning: only between these is it cut.
inline constexpr std::int64_t prompt_cut = 128;

/// Tokens of a prompt that follow each other.
struct Piece {
  int slot =
      -1;  ///< the sequence, whose length is `first`; -1: none, the piece is the whole and nothing is kept
  std::int64_t first = 0;  ///< position of the first token, a multiple of prompt_cut
  std::span<const std::int32_t> tokens;
};

/// The next token of a sequence.
struct Step {
  int slot = -1;
  std::int32_t token = 0;
};

class Pass {
 public:
  struct Settings {
    std::int64_t rows = 1;    ///< tokens of a pass at most
    std::int64_t steps = 1;   ///< steps among them at most
    std::int64_t logits = 1;  ///< rows whose logits are there at once
    std::int64_t tokens = 1;  ///< tokens of a sequence at most
    double rope_scale = 1;    ///< positions are divided by it
  };

  /// caches may be null: then pieces have no slot, and there are no steps.
  Pass(const CacheShape& shape, const Settings& settings, const Weights& weights, Caches* caches, Ops& ops,
       Arena& arena);
  /// Fills what is constant; once, after the arena's commit.
  void prepare();

  /// Rows of the pieces in their order, then of the steps. Sequences are longer by these tokens afterwards. Where few rows are
  /// `wanted`, in any order, the last layer's products behind its mixer are computed for them alone; without it all are.
  void run(std::span<const Piece> pieces, std::span<const Step> steps,
           std::optional<std::span<const std::int64_t>> wanted = std::nullopt);
  /// The logits of these rows of the last run, f32 [rows, V], until the next call; at most settings().logits rows, all of them
  /// wanted there.
  Tensor logits(std::span<const std::int64_t> wanted);

  const Settings& settings() const { return settings_; }
  /// The sizes that decide the scratch of its operations, of sequences of up to `tokens` tokens.
  static OpShapes op_shapes(const model::ModelConfig& config, std::int64_t tokens);

 private:
  /// Rows of the model, whose tokens, slots and positions are on the device; the steps among them have sequences of
  /// `most_tokens` tokens at most.
  void compute(std::span<const Piece> pieces, std::int64_t rows, std::int64_t steps,
               std::int64_t most_tokens);
  /// Moves rows kept_ of x to its front.
  void move_kept(const Tensor& x);
  void mixer(std::int64_t layer, std::span<const Piece> pieces, std::int64_t steps, std::int64_t most_tokens);
  void mix_piece(std::int64_t layer, const Piece& piece, std::int64_t row);
  std::int64_t unwanted_queries(std::int64_t layer, std::int64_t row, std::int64_t n) const;
  void mix_steps(std::int64_t layer, std::int64_t row, std::int64_t count, std::int64_t most_tokens,
                 bool at_rest);
  /// Where attention's output goes: without an output gate out_proj takes it as it is.
  Tensor attended(const model::MixerForm& form) const { return form.o.width == 0 ? z_ : a_; }
  Tensor rope_of(const model::MixerForm& form) const;
  Tensor part(const model::ProjectionPart& part, std::int64_t layer, std::int64_t begin,
              std::int64_t end) const;

  struct Rope {
    std::int64_t chunk;
    Tensor table;
  };

  CacheShape shape_;
  Settings settings_;
  const Weights& weights_;
  Caches* caches_;
  Ops& ops_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::unique_ptr<Recording>>
      recordings_;  ///< by steps and tokens
  std::vector<Rope> ropes_;
  Tensor inputs_;                      ///< i32: tokens, slots and positions of a run, one behind the other
  Tensor tokens_, slots_, positions_;  ///< i32 [rows], [steps], [steps] of it
  Tensor stream_;                      ///< f32 [rows, d]
  Tensor rstd_;                        ///< f32 [rows]
  Tensor u_;                           ///< C [rows, d]: normed
  Tensor wide_, wide_activated_;       ///< C [rows, most columns]
  Tensor q_, a_, z_, delta_;           ///< C [rows, d]
  Tensor k_, v_;                       ///< C [tokens, most heads P], of one sequence by position
  Tensor lse_;                         ///< f32 [H, rows]
  Tensor partials_, arrivals_;         ///< of a GPU's steps over long caches
  Tensor state_in_, state_out_;        ///< f32 [2, most heads, P]
  Tensor chosen_;                      ///< C [logits, d]
  Tensor logits_;                      ///< f32 [logits, V]
  std::optional<std::vector<std::int64_t>>
      kept_;  ///< rows of the last run that reached its end, ascending; none: all of them
};

}  // namespace ratplus::infer
