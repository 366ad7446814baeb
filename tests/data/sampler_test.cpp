#include "data/samples/sampler.h"

#include <doctest/doctest.h>

#include <set>
#include <vector>

#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;

TEST_CASE("sampler: ordered sequences share one token and go around") {
  const Sampler sampler(Sampling::ordered, 101, 10, 1);
  CHECK(sampler.sequences() == 10);
  for (std::int64_t i = 0; i < 30; ++i) CHECK(sampler.start(i) == i % 10 * 10);
  CHECK(sampler.start(9) + 10 == 100);  // the last label is the last token
  CHECK(Sampler(Sampling::ordered, 100, 10, 1).sequences() == 9);
  CHECK(Sampler(Sampling::ordered, 11, 10, 1).sequences() == 1);
  CHECK(Sampler(Sampling::ordered, 11, 10, 1).start(12345678901) == 0);
}

TEST_CASE("sampler: random is a function of (seed, index) alone") {
  const Sampler first(Sampling::random, 1'000'000, 10, 7);
  const Sampler second(Sampling::random, 1'000'000, 10, 7);
  const Sampler other(Sampling::random, 1'000'000, 10, 8);
  std::vector<std::int64_t> forward;
  for (std::int64_t i = 0; i < 1000; ++i) forward.push_back(first.start(i));
  int same = 0;
  for (std::int64_t i = 999; i >= 0; --i) {
    CHECK(second.start(i) == forward[static_cast<std::size_t>(i)]);
    same += other.start(i) == forward[static_cast<std::size_t>(i)];
  }
  CHECK(same < 3);
  CHECK(std::set<std::int64_t>(forward.begin(), forward.end()).size() > 990);
}

TEST_CASE("sampler: random offsets are uniform over every sequence of the stream") {
  // 64 possible starts: chi-square with 63 degrees of freedom has mean 63 and standard deviation 11.2.
  const Sampler sampler(Sampling::random, 84, 20, 3);
  std::vector<int> counts(64, 0);
  constexpr int draws = 64 * 1000;
  for (std::int64_t i = 0; i < draws; ++i) {
    const std::int64_t start = sampler.start(i);
    REQUIRE(start >= 0);
    REQUIRE(start < 64);
    ++counts[static_cast<std::size_t>(start)];
  }
  double chi_square = 0;
  for (const int count : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  CHECK(chi_square > 25);   // too even is not random either (such as index mod 64, which gives 0)
  CHECK(chi_square < 120);  // 5 standard deviations
}

TEST_CASE("sampler: shuffled takes every sequence once a pass, in another order each time") {
  const Sampler sampler(Sampling::shuffled, 1003, 10, 5);
  const Sampler other(Sampling::shuffled, 1003, 10, 6);
  REQUIRE(sampler.sequences() == 100);
  std::vector<std::vector<std::int64_t>> passes(3);
  int same_as_other = 0;
  for (std::int64_t i = 0; i < 300; ++i) {
    passes[static_cast<std::size_t>(i / 100)].push_back(sampler.start(i));
    same_as_other += sampler.start(i) == other.start(i);
  }
  for (const auto& pass : passes) {
    std::set<std::int64_t> sequences(pass.begin(), pass.end());
    REQUIRE(sequences.size() == 100);
    CHECK(*sequences.begin() == 0);
    CHECK(*sequences.rbegin() == 990);
    for (const std::int64_t start : sequences) CHECK(start % 10 == 0);
  }
  CHECK(passes[0] != passes[1]);
  CHECK(passes[1] != passes[2]);
  CHECK(same_as_other < 15);  // 3 on average
  CHECK(Sampler(Sampling::shuffled, 11, 10, 1).start(7) == 0);
}

TEST_CASE("sampler: shuffled, at awkward sizes, takes every sequence once in each pass") {
  // Tokens and sequence: one sequence, few, just below and above powers of two, primes, a last token to spare or none.
  const std::vector<std::pair<std::int64_t, std::int64_t>> sizes{
      {2, 1},   {3, 1},   {11, 10},  {20, 10},  {21, 10},    {128, 1},
      {129, 1}, {130, 1}, {1025, 4}, {4099, 2}, {65'537, 7}, {99'991, 3}};
  for (const auto& entry : sizes) {
    const auto& tokens = entry.first;
    const auto& sequence_length = entry.second;
    CAPTURE(tokens);
    CAPTURE(sequence_length);
    const Sampler sampler(Sampling::shuffled, tokens, sequence_length, 12);
    const std::int64_t sequences = (tokens - 1) / sequence_length;
    REQUIRE(sampler.sequences() == sequences);
    for (std::int64_t pass = 0; pass < 3; ++pass) {
      std::vector<int> taken(static_cast<std::size_t>(sequences), 0);
      for (std::int64_t i = 0; i < sequences; ++i) {
        const std::int64_t start = sampler.start(pass * sequences + i);
        REQUIRE(start % sequence_length == 0);
        REQUIRE(start + sequence_length < tokens);
        ++taken[static_cast<std::size_t>(start / sequence_length)];
      }
      CHECK(std::count(taken.begin(), taken.end(), 1) == sequences);
    }
  }
}

TEST_CASE("sampler: only sequences that fit, and no negative index") {
  CHECK(contains(message_of([] { Sampler(Sampling::ordered, 10, 10, 1); }),
                 "one sequence of 10 inputs needs 11"));
  CHECK(contains(message_of([] { Sampler(Sampling::random, 0, 10, 1); }), "the data hold 0 tokens"));
  CHECK(contains(message_of([] { Sampler(Sampling::random, 10, 0, 1); }), "a sequence of 0 tokens"));
  CHECK(Sampler(Sampling::random, 11, 10, 1).start(5) == 0);
  CHECK_THROWS_AS(Sampler(Sampling::ordered, 11, 10, 1).start(-1), std::logic_error);
}
