// How a sequence's tokens are drawn: the parameters of a request, their checks, and the inputs of the operations of
// kernels/sampling_operations.h for one row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ratplus::infer {

/// Logits are changed in this order: repetition penalty, presence and frequency penalty, biases, bans; then
/// operation::SampleTokens draws by temperature, top_k, top_p and min_p.
struct SamplingParameters {
  double temperature = 1;  ///< 0: always the largest logit
  std::int64_t top_k = 0;  ///< 0: all tokens
  double top_p = 1;        ///< 1: all tokens
  double min_p = 0;        ///< share of the largest probability
  /// Divides positive logits of tokens that occurred, and multiplies negative ones.
  double repetition_penalty = 1;
  double presence_penalty = 0;   ///< subtracted from the logits of generated tokens
  double frequency_penalty = 0;  ///< subtracted once for each time that a token was generated
  bool penalize_prompt = true;   ///< the repetition penalty is for tokens of the prompt, too
  std::vector<std::pair<std::int32_t, float>> biases = {};  ///< token, and the number to add to its logit
  std::vector<std::int32_t> banned = {};                    ///< tokens that are never drawn
  std::uint64_t seed = 0;
};

/// Throws Error naming `where` (a request, a file) and the parameter: a number that is not finite or out of its range, a
/// token outside [0, vocab_size), a token with two biases, a ban on all tokens.
void check(const SamplingParameters& parameters, std::int64_t vocab_size, std::string_view where);

/// One row of operation::SampleTokens, but for its uniform number.
struct SamplingRow {
  float temperature;
  std::int32_t top_k;
  float top_p, min_p;
};
/// Of parameters that are checked.
SamplingRow sampling_row(const SamplingParameters& parameters);

/// The uniform number of [0, 1) that draws token `number` (from 0) of a sequence, a multiple of 2^-24: a function of
/// these arguments alone. `choice` tells apart the sequences that one request asks for.
float uniform_number(std::uint64_t seed, std::int64_t number, std::uint32_t choice = 0);

/// The entries of operation::AdjustLogits, of all rows.
struct LogitEntries {
  std::vector<std::int32_t> row, token;
  std::vector<float> factor, addend;

  std::size_t size() const { return row.size(); }
  void clear();
};

/// Follows the tokens of one sequence, for its penalties, biases and bans.
class TokenCounts {
 public:
  /// Parameters that are checked, and tokens of the vocabulary.
  TokenCounts(const SamplingParameters& parameters, std::span<const std::int32_t> prompt);

  /// Whether there is nothing to change.
  bool empty() const { return entries_.empty(); }
  /// Notes a generated token.
  void add(std::int32_t token);
  /// Appends this sequence's entries as row `row`, at most one a token.
  void append_entries(std::int32_t row, LogitEntries& entries) const;

 private:
  struct Entry {
    std::int32_t token = 0;
    float factor = 1;
    float bias = 0;  ///< -infinity: banned
    std::int64_t generated = 0;
  };
  Entry& entry_of(std::int32_t token);

  float repetition_, presence_, frequency_;
  std::vector<Entry> entries_;
  std::unordered_map<std::int32_t, std::size_t> places_;  ///< in entries_, by token
};

}  // namespace ratplus::infer
