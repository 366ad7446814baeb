#include "lib/infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "base/error.h"
#include "base/random.h"

namespace ratplus::infer {
namespace {

// Beyond these, float32 logits would overflow or lose their differences.
constexpr double most_temperature = 1e6, most_bias = 1e9;
constexpr double least_repetition = 0.01, most_repetition = 100;
constexpr double most_penalty = 100;

void check_range(double value, double low, double high, const char* name, std::string_view where,
                 std::string_view hint = "") {
  if (value >= low && value <= high) return;  // NaN is not
  fail("{}: {} = {} is not a number from {} to {}{}", where, name, value, low, high, hint);
}

void check_token(std::int32_t token, std::int64_t vocab_size, const char* name, std::string_view where) {
  if (token >= 0 && token < vocab_size) return;
  fail("{}: {} names the token {}, but the model's tokens are 0 to {}", where, name, token, vocab_size - 1);
}

}  // namespace

void check(const SamplingParameters& parameters, std::int64_t vocab_size, std::string_view where) {
  const SamplingParameters& p = parameters;
  check_range(p.temperature, 0, most_temperature, "temperature", where, " (0: always the likeliest token)");
  if (p.top_k < 0) fail("{}: top_k = {} is negative; 0 keeps all tokens", where, p.top_k);
  check_range(p.top_p, 0, 1, "top_p", where, " (1 keeps all tokens)");
  check_range(p.min_p, 0, 1, "min_p", where, " (0 keeps all tokens)");
  check_range(p.repetition_penalty, least_repetition, most_repetition, "repetition_penalty", where,
              " (1: no penalty)");
  check_range(p.presence_penalty, -most_penalty, most_penalty, "presence_penalty", where, " (0: no penalty)");
  check_range(p.frequency_penalty, -most_penalty, most_penalty, "frequency_penalty", where,
              " (0: no penalty)");
  std::unordered_set<std::int32_t> biased;
  for (const auto& [token, bias] : p.biases) {
    check_token(token, vocab_size, "logit_bias", where);
    if (!biased.insert(token).second) fail("{}: logit_bias names the token {} twice", where, token);
    if (!(std::abs(bias) <= most_bias)) {
      fail("{}: logit_bias adds {} to token {}; give a number from {} to {}, or ban the token", where, bias,
           token, -most_bias, most_bias);
    }
  }
  for (const std::int32_t token : p.banned) check_token(token, vocab_size, "banned", where);
  const std::unordered_set<std::int32_t> banned(p.banned.begin(), p.banned.end());
  if (std::cmp_greater_equal(banned.size(), vocab_size)) {
    fail("{}: all {} tokens are banned; leave one to draw", where, vocab_size);
  }
}

SamplingRow sampling_row(const SamplingParameters& parameters) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  return {.temperature = static_cast<float>(parameters.temperature),
          .top_k = static_cast<std::int32_t>(std::min(parameters.top_k, most)),
          .top_p = static_cast<float>(parameters.top_p),
          .min_p = static_cast<float>(parameters.min_p)};
}

float uniform_number(std::uint64_t seed, std::int64_t number, std::uint32_t choice) {
  constexpr std::uint64_t steps = std::uint64_t{1} << 24;  // a float's significand holds them all
  const std::uint64_t step =
      random_below(steps, seed, Purpose::generation, choice, static_cast<std::uint64_t>(number));
  return static_cast<float>(step) * 0x1p-24F;
}

void LogitEntries::clear() {
  row.clear(), token.clear();
  factor.clear(), addend.clear();
}

TokenCounts::TokenCounts(const SamplingParameters& parameters, std::span<const std::int32_t> prompt)
    : repetition_(static_cast<float>(parameters.repetition_penalty)),
      presence_(static_cast<float>(parameters.presence_penalty)),
      frequency_(static_cast<float>(parameters.frequency_penalty)) {
  for (const auto& [token, bias] : parameters.biases) entry_of(token).bias = bias;
  for (const std::int32_t token : parameters.banned) {
    entry_of(token).bias = -std::numeric_limits<float>::infinity();
  }
  if (repetition_ == 1 || !parameters.penalize_prompt) return;
  for (const std::int32_t token : prompt) entry_of(token).factor = repetition_;
}

void TokenCounts::add(std::int32_t token) {
  if (repetition_ == 1 && presence_ == 0 && frequency_ == 0) return;
  Entry& entry = entry_of(token);
  entry.factor = repetition_;
  ++entry.generated;
}

void TokenCounts::append_entries(std::int32_t row, LogitEntries& entries) const {
  for (const Entry& entry : entries_) {
    const float presence = entry.generated > 0 ? presence_ : 0;
    entries.row.push_back(row);
    entries.token.push_back(entry.token);
    entries.factor.push_back(entry.factor);
    entries.addend.push_back(entry.bias - presence - frequency_ * static_cast<float>(entry.generated));
  }
}

TokenCounts::Entry& TokenCounts::entry_of(std::int32_t token) {
  const auto [place, is_new] = places_.try_emplace(token, entries_.size());
  if (is_new) entries_.push_back({.token = token});
  return entries_[place->second];
}

}  // namespace ratplus::infer
