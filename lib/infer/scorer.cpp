#include "lib/infer/scorer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace ratplus::infer {
namespace {

/// Rows whose logits are there at once: 256 MiB of a vocabulary of 32,000.
std::int64_t logit_rows(const model::ModelConfig& config, std::int64_t rows) {
  constexpr std::int64_t floats = std::int64_t{1} << 26;
  return std::clamp<std::int64_t>(floats / config.vocab_size, 1, rows);
}

Pass::Settings pass_settings(const ScorerSettings& settings, const model::ModelConfig& config) {
  const auto rows = std::max(settings.rows, settings.tokens);
  return {.rows = rows,
          .steps = 1,
          .logits = logit_rows(config, rows),
          .tokens = settings.tokens,
          .rope_scale = settings.rope_scale};
}

}  // namespace

bool Scored::greedy(const ScoreRequest& request) const {
  for (std::size_t i = 0; i < log_probability.size(); ++i) {
    if (top[i].front().token != request.tokens[static_cast<std::size_t>(request.first) + i]) return false;
  }
  return true;
}

Scorer::Scorer(const model::PatternPlan& plan, const ScorerSettings& settings, const Weights& weights,
               Ops& ops, Arena& arena)
    : settings_(settings),
      weights_(weights),
      ops_(ops),
      pass_(CacheShape(weights.config(), plan, settings.tokens), pass_settings(settings, weights.config()),
            weights, nullptr, ops, arena) {
  const auto rows = pass_.settings().logits;
  labels_ = arena.allocate(DType::i32, {rows});
  log_probability_ = arena.allocate(DType::f32, {rows});
  top_tokens_ = arena.allocate(DType::i32, {rows * most_tops});
  top_log_probability_ = arena.allocate(DType::f32, {rows * most_tops});
}

void Scorer::check(const ScoreRequest& request, const std::string& where) const {
  const auto vocabulary = weights_.config().vocab_size;
  const auto tokens = std::ssize(request.tokens);
  if (tokens == 0) fail("{}: there is no token", where);
  if (tokens > settings_.tokens)
    fail("{}: {} tokens, and a sequence has at most {}", where, tokens, settings_.tokens);
  for (const auto token : request.tokens) {
    if (token < 0 || token >= vocabulary)
      fail("{}: token {} is outside the model's vocabulary of {}", where, token, vocabulary);
  }
  if (request.first < 1 || request.first > tokens) {
    fail(
        "{}: the first token to score is number {} of {}, from 0; it is at least 1, since the one before "
        "predicts it",
        where, request.first, tokens);
  }
  if (request.tops < 0 || request.tops > std::min(most_tops, vocabulary))
    fail("{}: {} log-probabilities a token are asked for; at most {}", where, request.tops,
         std::min(most_tops, vocabulary));
}

void Scorer::score(std::span<const ScoreRequest> requests,
                   const std::function<void(std::size_t, Scored)>& done) {
  for (std::size_t begin = 0; begin < requests.size();) {
    std::size_t end = begin;
    for (std::int64_t rows = 0; end < requests.size(); ++end) {
      rows += std::ssize(requests[end].tokens);
      if (rows > pass_.settings().rows) break;
    }
    std::vector<Scored> results(end - begin);
    score_pass(requests.subspan(begin, end - begin), results);
    for (std::size_t i = begin; i < end; ++i) done(i, std::move(results[i - begin]));
    begin = end;
  }
}

void Scorer::score_pass(std::span<const ScoreRequest> requests, std::span<Scored> results) {
  struct Place {
    std::size_t request;
    std::int32_t label;  ///< -1: of the next token
  };
  std::vector<Piece> pieces;
  std::vector<std::int64_t> rows;
  std::vector<Place> places;
  std::int64_t begin = 0, tops = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto& tokens = requests[i].tokens;
    pieces.push_back({.slot = -1, .first = 0, .tokens = tokens});
    const auto end = std::ssize(tokens) + (requests[i].next ? 1 : 0);
    for (auto t = requests[i].first; t < end; ++t) {
      rows.push_back(begin + t - 1);
      places.push_back({i, t < std::ssize(tokens) ? tokens[static_cast<std::size_t>(t)] : -1});
    }
    begin += std::ssize(tokens);
    tops = std::max(tops, requests[i].tops);
  }
  pass_.run(pieces, {}, rows);
  std::vector<float> values, top_values;
  std::vector<std::int32_t> labels, top_tokens;
  for (std::size_t first = 0; first < rows.size();) {
    const auto n =
        std::min<std::size_t>(rows.size() - first, static_cast<std::size_t>(pass_.settings().logits));
    const auto m = static_cast<std::int64_t>(n);
    labels.clear();
    for (std::size_t i = 0; i < n; ++i) labels.push_back(places[first + i].label);
    ops_.upload(labels_.slice(0, 0, m), labels.data());
    const auto of_tops = [&](const Tensor& x) {
      return tops == 0 ? Tensor() : x.slice(0, 0, m * tops).view({m, tops});
    };
    ops_.score_tokens({.log_probability = log_probability_.slice(0, 0, m),
                       .top_tokens = of_tops(top_tokens_),
                       .top_log_probability = of_tops(top_log_probability_),
                       .logits = pass_.logits(std::span(rows).subspan(first, n)),
                       .labels = labels_.slice(0, 0, m)});
    values.resize(n), top_values.resize(n * static_cast<std::size_t>(tops)),
        top_tokens.resize(top_values.size());
    ops_.download(values.data(), log_probability_.slice(0, 0, m));
    if (tops > 0) {
      ops_.download(top_tokens.data(), of_tops(top_tokens_));
      ops_.download(top_values.data(), of_tops(top_log_probability_));
    }
    for (std::size_t i = 0; i < n; ++i) {
      const auto& place = places[first + i];
      auto& result = results[place.request];
      if (place.label >= 0) result.log_probability.push_back(values[i]);
      auto& top = result.top.emplace_back();
      for (std::int64_t j = 0; j < requests[place.request].tops; ++j) {
        const auto at = i * static_cast<std::size_t>(tops) + static_cast<std::size_t>(j);
        top.push_back({top_tokens[at], top_values[at]});
      }
    }
    first += n;
  }
}

}  // namespace ratplus::infer
