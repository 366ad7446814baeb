// Spread: a limited number of samples, taken evenly from all of each source (docs/model.md, section 21).
#pragma once

#include <cstdint>
#include <vector>

#include "data/samples/mixture.h"

namespace ratplus::data {

/// Number i of n samples that lie at even distances over `samples`: floor(i samples / n). 0 <= i < n <= samples; n^2 fits 64 bits
/// where n < samples.
constexpr std::int64_t spread_index(std::int64_t i, std::int64_t n, std::int64_t samples) {
  return i * (samples / n) + i * (samples % n) / n;
}

/// The first samples of a mixture, before a source begins anew and `most` at most. Each source keeps its share of them, taken
/// at even distances over all of it.
class Spread {
 public:
  /// Changes nothing: a mixture that goes on and on.
  Spread() = default;
  /// sizes: samples of each source, 1 at least.
  Spread(Mixture& mixture, std::vector<std::int64_t> sizes, std::int64_t most);

  std::int64_t samples() const { return samples_; }
  /// The number, within its source, of the mixture's sample.
  std::int64_t index(const Mixture::Entry& entry) const {
    if (sizes_.empty()) return entry.index;
    const auto source = static_cast<std::size_t>(entry.source);
    return spread_index(entry.index, shares_[source], sizes_[source]);
  }

 private:
  std::vector<std::int64_t> sizes_;
  std::vector<std::int64_t> shares_;  ///< of each source, among the samples
  std::int64_t samples_ = 0;
};

}  // namespace ratplus::data
