// Sampler: where the window of a sample starts, as a function of (seed, sample index) alone
// (docs/model.md, section 16).
#pragma once

#include <cstdint>
#include <optional>

#include "data/samples/permutation.h"

namespace ratplus::data {

/// ordered: consecutive windows of T inputs (T + 1 tokens, overlapping in one), around again at the end.
/// random: uniform offsets over the whole stream.
/// shuffled: the windows of `ordered`, each once in a seeded order, and in another order each time around.
enum class Sampling { ordered, random, shuffled };
const char* to_string(Sampling sampling);

class Sampler {
 public:
  /// stream_tokens: tokens of the split; window: T; source: its number where several are mixed. Throws Error when the
  /// stream holds no window (T + 1 tokens).
  Sampler(Sampling sampling, std::int64_t stream_tokens, std::int64_t window, std::uint64_t seed,
          std::uint32_t source = 0);

  /// First token of sample `index`; the window is the T + 1 tokens from there.
  std::int64_t start(std::int64_t index) const;
  /// Windows in one pass, ordered or shuffled.
  std::int64_t windows() const { return windows_; }

 private:
  Sampling sampling_;
  std::int64_t stream_tokens_;
  std::int64_t window_;
  std::uint64_t seed_;
  std::uint32_t source_;
  std::int64_t windows_;
  std::optional<Permutation> order_;  ///< shuffled only
};

}  // namespace ratplus::data
