#include "base/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace ratplus {
namespace {

__extension__ using Wide = unsigned __int128;

std::array<std::uint32_t, 2> key_of(std::uint64_t seed) {
  return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
}

std::array<std::uint32_t, 4> words(std::uint64_t seed, Purpose purpose, std::uint32_t attempt,
                                   std::uint32_t stream, std::uint64_t index) {
  // A purpose is a small number, so that its upper half is free to count attempts.
  const std::uint32_t use = static_cast<std::uint32_t>(purpose) | attempt << 16;
  return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), stream, use},
                key_of(seed));
}

std::uint64_t join(std::uint32_t low, std::uint32_t high) {
  return std::uint64_t{high} << 32 | low;
}

/// Two independent N(0, 1) from two words (Box and Muller, 1958). u lies inside (0, 1): the log is finite.
std::array<double, 2> box_muller(std::uint32_t a, std::uint32_t b) {
  const double u = (a + 0.5) * 0x1p-32;
  const double angle = 2 * std::numbers::pi * (b * 0x1p-32);
  const double radius = std::sqrt(-2 * std::log(u));
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9;  // the golden ratio
    key[1] += 0xBB67AE85;  // sqrt(3) - 1
  }
  return counter;
}

std::uint64_t random_below(std::uint64_t bound, std::uint64_t seed, Purpose purpose, std::uint32_t stream,
                           std::uint64_t index) {
  require(bound > 0, "a random number below {}", bound);
  // Lemire, "Fast random integer generation in an interval" (2019): the upper half of bits x bound, but for
  // the few products whose lower half would favour some results.
  const std::uint64_t threshold = (0 - bound) % bound;
  for (std::uint32_t attempt = 0;; ++attempt) {
    const auto w = words(seed, purpose, attempt, stream, index);
    for (const std::uint64_t bits : {join(w[0], w[1]), join(w[2], w[3])}) {
      const Wide product = static_cast<Wide>(bits) * bound;
      if (static_cast<std::uint64_t>(product) >= threshold) return static_cast<std::uint64_t>(product >> 64);
    }
  }
}

void fill_normal(std::span<float> out, float sigma, std::uint64_t seed, Purpose purpose, std::uint32_t stream,
                 std::uint64_t first) {
  if (out.empty()) return;
  // Block j of the stream is the 4 elements from 4 j on, all from one philox call.
  const std::uint64_t last = first + out.size();
  const auto begin = static_cast<std::int64_t>(first / 4);
  const auto end = static_cast<std::int64_t>((last + 3) / 4);
#pragma omp parallel for schedule(static) if (end - begin > 4096)
  for (std::int64_t block = begin; block < end; ++block) {
    const auto start = static_cast<std::uint64_t>(block) * 4;
    const auto w = words(seed, purpose, 0, stream, static_cast<std::uint64_t>(block));
    const auto [z0, z1] = box_muller(w[0], w[1]);
    const auto [z2, z3] = box_muller(w[2], w[3]);
    const std::array<double, 4> z{z0, z1, z2, z3};
    for (std::uint64_t i = std::max(start, first); i < std::min(start + 4, last); ++i) {
      out[i - first] = static_cast<float>(z[i - start] * sigma);
    }
  }
}

void fill_uniform(std::span<double> out, double low, double high, std::uint64_t seed, Purpose purpose,
                  std::uint32_t stream, std::uint64_t first) {
  for (std::uint64_t i = 0; i < out.size(); ++i) {
    const auto w = words(seed, purpose, 0, stream, (first + i) / 4);
    const double u = (w[(first + i) % 4] + 0.5) * 0x1p-32;
    out[i] = low + (high - low) * u;
  }
}

}  // namespace ratplus
