#include "data/samples/mixture.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "data/samples/spread.h"
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

TEST_CASE("spread: the numbers are distinct, in order, and as far apart as can be") {
  for (const std::int64_t samples : {1, 2, 7, 64, 1000}) {
    for (std::int64_t n = 1; n <= samples; n += 1 + n / 8) {
      CAPTURE(samples);
      CAPTURE(n);
      CHECK(spread_index(0, n, samples) == 0);
      for (std::int64_t i = 0; i < n; ++i) {
        CHECK(spread_index(i, n, samples) == i * samples / n);
        const std::int64_t next = i + 1 < n ? spread_index(i + 1, n, samples) : samples;
        const std::int64_t distance = next - spread_index(i, n, samples);
        CHECK(distance >= samples / n);
        CHECK(distance <= (samples + n - 1) / n);
      }
    }
  }
  // i samples / n beyond 64 bits.
  const std::int64_t samples = std::int64_t{1} << 40;
  CHECK(spread_index(999'999'999, 1'000'000'000, samples) == samples - 1100);  // of 1099.51 each
  CHECK(spread_index(samples - 1, samples, samples) == samples - 1);
}

TEST_CASE("spread: each source keeps its share of the first samples, over all of its own") {
  const std::vector<std::int64_t> sizes = {500, 40};
  Mixture mixture({3, 1}, 7);
  const Spread spread(mixture, sizes, 100);
  CHECK(spread.samples() == 100);
  std::vector<std::vector<std::int64_t>> of(2);
  std::vector<std::int64_t> shares(2, 0);
  for (std::int64_t i = 0; i < 100; ++i) {
    const auto entry = mixture.at(i);
    of[static_cast<std::size_t>(entry.source)].push_back(spread.index(entry));
    ++shares[static_cast<std::size_t>(entry.source)];
  }
  CHECK(shares[0] > 50);
  for (std::size_t source = 0; source < 2; ++source) {
    const auto& numbers = of[source];
    CHECK(std::set(numbers.begin(), numbers.end()).size() == numbers.size());
    CHECK(std::is_sorted(numbers.begin(), numbers.end()));
    CHECK(numbers.front() == 0);
    CHECK(numbers.back() == (shares[source] - 1) * sizes[source] / shares[source]);
  }
  // The smaller source ends the whole: all of it, and as many of the other as stand before.
  const Spread all(mixture, sizes, 1'000'000);
  CHECK(all.samples() < 540);
  std::set<std::int64_t> small;
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < all.samples(); ++i) {
    const auto entry = mixture.at(i);
    if (entry.source == 1)
      small.insert(all.index(entry));
    else
      last = all.index(entry);
  }
  CHECK(small.size() == 40);
  CHECK(*small.rbegin() == 39);
  CHECK(last > 490);
  CHECK(mixture.at(all.samples()).source == 1);
  CHECK(Spread().index({1, 12345}) == 12345);
}
