// ContinuationLines: a file's lines as contexts with continuations, of which the log-probability is asked.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/generate/cut.h"
#include "lib/generate/line_work.h"
#include "lib/generate/model_text.h"
#include "lib/infer/scorer.h"

namespace ratplus::generate {

/// Tokens of which those from `first` on are scored.
struct Continuation {
  std::vector<std::int32_t> tokens;
  std::int64_t first = 1;
};

/// A context and a continuation as lm-evaluation-harness encodes them: both as one text, whose tokens after as many as the
/// context alone has are the continuation's; white space at the context's end is moved to the continuation. An empty
/// context is the end-of-text token. Throws Error, beginning with `where`, where no such token is known.
Continuation encode_continuation(const std::string& context, const std::string& continuation,
                                 const ModelText& model, const std::string& where);

/// Lines {"context": text, "continuation": text} or {"context_tokens": [...], "continuation_tokens": [...]}, with "id" and
/// "meta", which go to the result as they are. docs/generation.md describes both lines.
class ContinuationLines : public LineWorker {
 public:
  ContinuationLines(const InputLines& input, Cut cut, const ModelText& text, infer::Scorer& scorer);

  void check(std::size_t line) const override { parse(line); }
  std::int64_t room() const override;
  void add(std::size_t line) override { queue_.push_back(line); }
  bool idle() const override { return queue_.empty(); }
  void step(const Done& done) override;
  std::int64_t tokens() const override { return tokens_; }

 private:
  struct Parsed {
    infer::ScoreRequest request;
    nlohmann::ordered_json id, meta;  ///< null: none
    std::optional<std::int64_t> characters = {};
  };

  Parsed parse(std::size_t line) const;
  Continuation fitted(Continuation continuation, const std::string& where) const;

  const InputLines& input_;
  Cut cut_;
  const ModelText& text_;
  infer::Scorer& scorer_;
  std::deque<std::size_t> queue_;
  std::int64_t most_ = 256;  ///< lines in the queue; more where they are soon done
  std::int64_t tokens_ = 0;
};

/// Sums over the results of ContinuationLines.
struct ContinuationSums {
  std::int64_t continuations = 0;
  std::int64_t tokens = 0;
  std::int64_t greedy = 0;  ///< continuations all of whose tokens are the likeliest
  double log_likelihood = 0;

  void add(const nlohmann::ordered_json& result);
  double perplexity() const;  ///< a token
};

}  // namespace ratplus::generate
