// Mixture: which of several sources a sample is taken from, by their weights.
#pragma once

#include <cstdint>
#include <vector>

#include "data/samples/permutation.h"

namespace ratplus::data {

/// Samples are dealt in rounds: in each, every source has its share of the places (to 1 / round_samples, one at least),
/// and a seeded permutation says which. A source's samples are numbered 0, 1, 2, ... without a gap, so that each keeps
/// its own order, and sample i depends on nothing but the weights, the seed and i.
class Mixture {
 public:
  static constexpr std::int64_t round_samples = 65536;

  struct Entry {
    std::int32_t source = 0;
    std::int64_t index = 0;  ///< number of the sample within its source
  };

  /// Weights are positive and of any sum. Throws Error for more sources than places.
  Mixture(const std::vector<double>& weights, std::uint64_t seed);

  /// The entry of global sample `index`. Keeps the table of the round it last saw, so one object is for one thread.
  Entry at(std::int64_t index);
  /// Places of each source in a round.
  const std::vector<std::int64_t>& shares() const { return shares_; }

 private:
  void deal(std::int64_t round);

  std::vector<std::int64_t> shares_;
  Permutation order_;
  std::int64_t dealt_ = -1;   ///< the round that the table holds
  std::vector<Entry> table_;  ///< its places; index counts from the round's beginning
};

}  // namespace ratplus::data
