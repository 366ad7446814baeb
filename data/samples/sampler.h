// Sampler: the beginning of a sample's sequence, as a function of (seed, sample index) alone
// (docs/model.md, section 16).
#pragma once

#include <cstdint>
#include <optional>

#include "data/samples/permutation.h"

namespace ratplus::data {

/// ordered: consecutive sequences of T inputs (T + 1 tokens, overlapping in one), around again at the end.
/// random: uniform offsets over the whole stream.
/// shuffled: the sequences of `ordered`, each once in a seeded order, and in another order each time around.
enum class Sampling { ordered, random, shuffled };
const char* to_string(Sampling sampling);

class Sampler {
 public:
  /// stream_tokens: tokens of the split; sequence_length: T; source: its number where several are mixed. Throws Error when the
  /// stream holds no sequence (T + 1 tokens).
  Sampler(Sampling sampling, std::int64_t stream_tokens, std::int64_t sequence_length, std::uint64_t seed,
          std::uint32_t source = 0);

  /// First token of sample `index`; the sequence is the T + 1 tokens from there.
  std::int64_t start(std::int64_t index) const;
  /// Sequences in one pass, ordered or shuffled.
  std::int64_t sequences() const { return sequences_; }

 private:
  Sampling sampling_;
  std::int64_t stream_tokens_;
  std::int64_t sequence_length_;
  std::uint64_t seed_;
  std::uint32_t source_;
  std::int64_t sequences_;
  std::optional<Permutation> order_;  ///< shuffled only
};

}  // namespace ratplus::data
