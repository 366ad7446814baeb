#include "data/samples/mixture.h"

#include <doctest/doctest.h>

#include <set>

#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using ratplus::Purpose;

TEST_CASE("permutation: a bijection of every size, another one for each seed, stream and number") {
  for (const std::int64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 17, 64, 100, 1000, 4097}) {
    const Permutation permutation(size, 5, Purpose::test, 0);
    for (const std::uint32_t number : {0U, 1U, 77U}) {
      std::set<std::int64_t> images;
      for (std::int64_t x = 0; x < size; ++x) {
        const std::int64_t y = permutation.at(number, x);
        REQUIRE(y >= 0);
        REQUIRE(y < size);
        images.insert(y);
      }
      CHECK(std::ssize(images) == size);
    }
  }
  const auto images = [](std::uint64_t seed, std::uint32_t stream, std::uint32_t number) {
    const Permutation permutation(1000, seed, Purpose::test, stream);
    std::vector<std::int64_t> all;
    for (std::int64_t x = 0; x < 1000; ++x) all.push_back(permutation.at(number, x));
    return all;
  };
  CHECK(images(1, 0, 0) == images(1, 0, 0));
  for (const auto& other : {images(2, 0, 0), images(1, 1, 0), images(1, 0, 1)}) {
    int fixed = 0;
    for (std::size_t x = 0; x < 1000; ++x) fixed += other[x] == images(1, 0, 0)[x];
    CHECK(fixed < 12);  // of two random permutations, 1 on average
  }
}

TEST_CASE("permutation: any element goes anywhere, and neighbours part") {
  // Where x = 3 of 20 goes over 20,000 permutations: chi-square with 19 degrees of freedom, mean 19, deviation 6.2. So
  // for the distance from the image of 3 to that of 4, one of 19 values.
  const Permutation permutation(20, 9, Purpose::test, 0);
  std::vector<int> places(20, 0);
  std::vector<int> distances(20, 0);
  for (std::uint32_t number = 0; number < 20'000; ++number) {
    const std::int64_t y = permutation.at(number, 3);
    ++places[static_cast<std::size_t>(y)];
    ++distances[static_cast<std::size_t>((permutation.at(number, 4) - y + 20) % 20)];
  }
  const auto chi_square = [](const std::vector<int>& counts, std::size_t first) {
    const double expected = 20'000.0 / static_cast<double>(counts.size() - first);
    double sum = 0;
    for (std::size_t i = first; i < counts.size(); ++i)
      sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    return sum;
  };
  CHECK(distances[0] == 0);
  CHECK(chi_square(places, 0) < 50);
  CHECK(chi_square(places, 0) > 4);
  CHECK(chi_square(distances, 1) < 50);
}

TEST_CASE("permutation: 10^14 numbers") {
  const std::int64_t size = 100'000'000'000'007;
  const Permutation permutation(size, 3, Purpose::test, 0);
  std::set<std::int64_t> images;
  double sum = 0;
  for (std::int64_t x = size - 1000; x < size; ++x) {
    images.insert(permutation.at(0, x));
    sum += static_cast<double>(permutation.at(0, x));
  }
  CHECK(images.size() == 1000);
  CHECK(sum / 1000 / static_cast<double>(size) == doctest::Approx(0.5).epsilon(0.1));  // deviation 0.009
}

TEST_CASE("mixture: each source has its share, and its samples in order without a gap") {
  Mixture mixture({3, 1, 1e-9}, 7);
  CHECK(mixture.shares() == std::vector<std::int64_t>{49151, 16384, 1});
  std::vector<std::int64_t> next(3, 0);
  std::int64_t first_half = 0;
  for (std::int64_t i = 0; i < 2 * Mixture::round_samples; ++i) {
    const auto place = mixture.at(i);
    CHECK_MESSAGE(place.index == next[static_cast<std::size_t>(place.source)]++, i);
    first_half += i < Mixture::round_samples / 2 && place.source == 1;
  }
  CHECK(next == std::vector<std::int64_t>{2 * 49151, 2 * 16384, 2});
  CHECK(std::abs(first_half - 8192) < 400);  // 5 standard deviations of a hypergeometric 8192

  Mixture other({3, 1, 1e-9}, 7);  // a round that is met first gives what it gives later
  for (const std::int64_t i : {std::int64_t{70'000}, std::int64_t{5}, std::int64_t{1} << 50}) {
    CHECK(other.at(i).source == mixture.at(i).source);
    CHECK(other.at(i).index == mixture.at(i).index);
  }
  Mixture one({0.2}, 1);
  CHECK(one.at(123456789).index == 123456789);
  CHECK(test::contains(test::message_of([] { Mixture(std::vector<double>(70'000, 1.0), 1); }),
                       "70000 sources"));
}
