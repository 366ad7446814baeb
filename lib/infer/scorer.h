// Scorer: log-probabilities of given tokens, many sequences a pass, without a cache and without all their logits at once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lib/infer/engine.h"
#include "lib/infer/pass.h"

namespace ratplus::infer {

struct ScoreRequest {
  std::vector<std::int32_t> tokens;  ///< at least one
  std::int64_t first = 1;  ///< the first token that is scored, at least 1: the one before predicts it
  std::int64_t tops = 1;   ///< largest log-probabilities at each place; at most most_tops
  bool next = false;       ///< also the largest at the place after the last token
};

/// At the places of tokens first, first + 1, ..., and then of the next one where it was asked for.
struct Scored {
  std::vector<float> log_probability;        ///< natural, in float32; none of the next
  std::vector<std::vector<TokenScore>> top;  ///< descending, equal ones by token
  /// Whether every token is the one with the largest log-probability, by tops of at least one.
  bool greedy(const ScoreRequest& request) const;
};

struct ScorerSettings {
  std::int64_t tokens = 4096;  ///< of a sequence at most
  std::int64_t rows = 8192;    ///< of a pass, at least `tokens`
  double rope_scale = 1;
};

class Scorer {
 public:
  /// As an Engine's.
  Scorer(const model::PatternPlan& plan, const ScorerSettings& settings, const Weights& weights, Ops& ops,
         Arena& arena);
  void prepare() { pass_.prepare(); }

  const ScorerSettings& settings() const { return settings_; }
  /// Throws Error, beginning with `where`, unless the request can be answered.
  void check(const ScoreRequest& request, const std::string& where) const;
  /// Requests that check() accepts; done(i, scored) is called for each, in their order.
  void score(std::span<const ScoreRequest> requests, const std::function<void(std::size_t, Scored)>& done);

 private:
  void score_pass(std::span<const ScoreRequest> requests, std::span<Scored> results);

  ScorerSettings settings_;
  const Weights& weights_;
  Ops& ops_;
  Pass pass_;
  Tensor labels_;                            ///< i32 [logits]
  Tensor log_probability_;                   ///< f32 [logits]
  Tensor top_tokens_, top_log_probability_;  ///< [logits most_tops]
};

}  // namespace ratplus::infer
