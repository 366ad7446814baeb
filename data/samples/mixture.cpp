#include "data/samples/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace ratplus::data {
namespace {

/// Whole places in the proportion of the weights (largest remainders), one at least for each.
std::vector<std::int64_t> share_places(const std::vector<double>& weights, std::int64_t places) {
  require(!weights.empty(), "a mixture of no sources");
  for (const double weight : weights) require(weight > 0 && std::isfinite(weight), "weight {}", weight);
  const auto sources = std::ssize(weights);
  if (sources > places) fail("{} sources are more than can be mixed; give at most {}", sources, places);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int64_t> shares;
  std::vector<double> remainders;
  for (const double weight : weights) {
    const double exact = weight / sum * static_cast<double>(places - sources);
    shares.push_back(1 + static_cast<std::int64_t>(exact));
    remainders.push_back(exact - std::floor(exact));
  }
  std::vector<std::size_t> by_remainder(weights.size());
  std::iota(by_remainder.begin(), by_remainder.end(), std::size_t{0});
  std::stable_sort(by_remainder.begin(), by_remainder.end(),
                   [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  std::int64_t left = places - std::accumulate(shares.begin(), shares.end(), std::int64_t{0});
  for (std::size_t i = 0; left > 0; ++i, --left) ++shares[by_remainder[i % by_remainder.size()]];
  return shares;
}

}  // namespace

Mixture::Mixture(const std::vector<double>& weights, std::uint64_t seed)
    : shares_(share_places(weights, round_samples)), order_(round_samples, seed, Purpose::mixing, 0) {}

void Mixture::deal(std::int64_t round) {
  table_.resize(round_samples);
  std::vector<std::int32_t> source_of(round_samples);
  auto end = source_of.begin();
  for (std::size_t s = 0; s < shares_.size(); ++s)
    end = std::fill_n(end, shares_[s], static_cast<std::int32_t>(s));
  std::vector<std::int64_t> next(shares_.size(), 0);
  for (std::int64_t i = 0; i < round_samples; ++i) {
    const auto source = source_of[static_cast<std::size_t>(order_.at(static_cast<std::uint32_t>(round), i))];
    table_[static_cast<std::size_t>(i)] = {source, next[static_cast<std::size_t>(source)]++};
  }
  dealt_ = round;
}

Mixture::Entry Mixture::at(std::int64_t index) {
  require(index >= 0, "sample index {} is negative", index);
  if (shares_.size() == 1) return {0, index};
  const std::int64_t round = index / round_samples;
  if (round != dealt_) deal(round);
  Entry place = table_[static_cast<std::size_t>(index % round_samples)];
  place.index += round * shares_[static_cast<std::size_t>(place.source)];
  return place;
}

}  // namespace ratplus::data
