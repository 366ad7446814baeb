#include "base/random.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <vector>

using namespace ratplus;

TEST_CASE("philox4x32-10 gives the known answers of Random123") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random numbers depend on every part of their name") {
  const auto draw = [](std::uint64_t seed, Purpose purpose, std::uint32_t stream, std::uint64_t index) {
    return random_below(std::uint64_t{1} << 63, seed, purpose, stream, index);
  };
  const std::uint64_t number = draw(1, Purpose::test, 2, 3);
  CHECK(number == draw(1, Purpose::test, 2, 3));
  CHECK(number != draw(2, Purpose::test, 2, 3));
  CHECK(number != draw(std::uint64_t{1} << 32 | 1, Purpose::test, 2, 3));
  CHECK(number != draw(1, Purpose::sampling, 2, 3));
  CHECK(number != draw(1, Purpose::test, 3, 3));
  CHECK(number != draw(1, Purpose::test, 2, 4));
  CHECK(number != draw(1, Purpose::test, 2, std::uint64_t{1} << 32 | 3));
}

TEST_CASE("random_below is uniform") {
  constexpr std::uint64_t bound = 7, draws = 70000;
  std::array<double, bound> counts{};
  for (std::uint64_t i = 0; i < draws; ++i) ++counts[random_below(bound, 5, Purpose::test, 0, i)];
  for (const double count : counts) CHECK(std::abs(count - 10000) < 5 * std::sqrt(10000 * 6 / 7.0));
  // A bound just above 2^63: a bare remainder, or a bare product, would draw the lower results twice as
  // often.
  constexpr std::uint64_t large = (std::uint64_t{1} << 63) + (std::uint64_t{1} << 62);
  double lower = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) lower += random_below(large, 5, Purpose::test, 1, i) < large / 3;
  CHECK(std::abs(lower - 20000 / 3.0) < 5 * std::sqrt(20000 * 2 / 9.0));
  CHECK(random_below(1, 5, Purpose::test, 0, 0) == 0);
}

TEST_CASE("normal numbers: moments, and any sub-range gives the same elements") {
  std::vector<float> all(100003);
  fill_normal(all, 0.02f, 9, Purpose::test, 4, 0);
  double sum = 0, squares = 0, fourth = 0;
  for (const float value : all) {
    const double z = value / 0.02;
    sum += z, squares += z * z, fourth += z * z * z * z;
  }
  const auto n = static_cast<double>(all.size());
  CHECK(std::abs(sum / n) < 5 / std::sqrt(n));
  CHECK(std::abs(squares / n - 1) < 5 * std::sqrt(2 / n));
  CHECK(std::abs(fourth / n - 3) < 5 * std::sqrt(96 / n));
  for (const std::size_t first : {0, 1, 2, 3, 4, 4097, 99990}) {
    for (const std::size_t length : {1, 2, 5, 13}) {
      std::vector<float> part(length);
      fill_normal(part, 0.02f, 9, Purpose::test, 4, first);
      for (std::size_t i = 0; i < length; ++i) CHECK(part[i] == all[first + i]);
    }
  }
}
