#include "data/samples/permutation.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"

namespace ratplus::data {
namespace {

/// Four make a permutation that cannot be told from a random one where the sides are long; short ones need more.
constexpr std::uint32_t rounds = 8;

}  // namespace

Permutation::Permutation(std::int64_t size, std::uint64_t seed, Purpose purpose, std::uint32_t stream)
    : size_(static_cast<std::uint64_t>(size)), seed_(seed), purpose_(purpose), stream_(stream) {
  require(size >= 1 && size <= std::int64_t{1} << 62, "a permutation of {} numbers", size);
  require(stream < 1U << 24, "stream {} of a permutation", stream);
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(size_ - 1)) + 1) / 2);
}

std::uint64_t Permutation::network(std::uint32_t number, std::uint64_t x) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = x >> half_bits_;
  std::uint64_t right = x & mask;
  for (std::uint32_t round = 0; round < rounds; ++round) {
    const std::uint64_t word =
        random_below(mask + 1, seed_, purpose_, stream_ << 8 | round, std::uint64_t{number} << 32 | right);
    left = std::exchange(right, left ^ word);
  }
  return left << half_bits_ | right;
}

std::int64_t Permutation::at(std::uint32_t number, std::int64_t x) const {
  require(x >= 0 && x < size(), "{} is not below {}", x, size_);
  auto y = static_cast<std::uint64_t>(x);
  do y = network(number, y);
  while (y >= size_);
  return static_cast<std::int64_t>(y);
}

}  // namespace ratplus::data
