// Permutation: a seeded order of the numbers below n, computed for each number alone.
#pragma once

#include <cstdint>

#include "base/random.h"

namespace ratplus::data {

/// Bijections of [0, size), as many as there are (seed, purpose, stream, number): no table in memory, any element in
/// constant time. A Feistel network (Luby and Rackoff, 1988) permutes the numbers of an even count of bits; a result
/// outside [0, size) is permuted again until it is inside (cycle walking: Black and Rogaway, 2002), fewer than four
/// times on average.
class Permutation {
 public:
  /// stream: below 2^24; separates permutations that share a seed and a purpose. Throws std::logic_error unless 1 <= size <= 2^62.
  Permutation(std::int64_t size, std::uint64_t seed, Purpose purpose, std::uint32_t stream);

  /// Where permutation `number` (an epoch) puts x, 0 <= x < size.
  std::int64_t at(std::uint32_t number, std::int64_t x) const;
  std::int64_t size() const { return static_cast<std::int64_t>(size_); }

 private:
  std::uint64_t network(std::uint32_t number, std::uint64_t x) const;

  std::uint64_t size_;
  std::uint64_t seed_;
  Purpose purpose_;
  std::uint32_t stream_;
  int half_bits_;  ///< of a side of the network
};

}  // namespace ratplus::data
