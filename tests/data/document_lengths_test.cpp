#include "data/dataset/document_lengths.h"

#include <doctest/doctest.h>

#include <vector>

#include "tests/data/support.h"

using namespace ratplus;

TEST_CASE("document lengths: extremes and the mean are exact, quantiles within 1 %, over all shards") {
  const test::Scratch scratch;
  std::vector<std::vector<int>> shards(2);
  for (int length = 1; length <= 100; ++length)  // in a scrambled order over the shards
    shards[static_cast<std::size_t>(length % 2)].push_back(length * 397 % 809);
  int shortest = 809, longest = 0;
  double sum = 0;
  std::vector<int> all;
  for (const auto& shard : shards) all.insert(all.end(), shard.begin(), shard.end());
  std::sort(all.begin(), all.end());
  for (const int length : all) {
    shortest = std::min(shortest, length);
    longest = std::max(longest, length);
    sum += length;
  }
  const auto manifest = test::write_counting_dataset(scratch.path(), shards);
  const auto lengths = data::document_lengths(scratch.path(), manifest, data::Split::train);
  CHECK(lengths.documents == 100);
  CHECK(lengths.shortest == shortest);
  CHECK(lengths.longest == longest);
  CHECK(lengths.mean == doctest::Approx(sum / 100));
  CHECK(static_cast<double>(lengths.tenth) == doctest::Approx(all[9]).epsilon(0.015));
  CHECK(static_cast<double>(lengths.median) == doctest::Approx(all[49]).epsilon(0.015));
  CHECK(static_cast<double>(lengths.nine_tenths) == doctest::Approx(all[89]).epsilon(0.015));
}

TEST_CASE("document lengths: one document is every quantile, and of none all is zero") {
  const test::Scratch scratch;
  const auto one = test::write_counting_dataset(scratch.path(), {{1}});
  const auto lengths = data::document_lengths(scratch.path(), one, data::Split::train);
  CHECK(lengths.shortest == 1);
  CHECK(lengths.median == 1);
  CHECK(lengths.longest == 1);
  const auto none = data::document_lengths(scratch.path(), one, data::Split::validation);
  CHECK(none.documents == 0);
  CHECK(none.shortest == 0);
  CHECK(none.mean == 0);
}
