#include "parallel/communicator.h"

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "tests/support/ranks.h"

using namespace ratplus;
using parallel::make_mpi_communicator;

namespace {

Tensor tensor_of(std::vector<float>& values) {
  return {values.data(), DType::f32, {static_cast<std::int64_t>(values.size())}};
}

/// Element i of what rank r holds: distinct everywhere, and its sums are exact in float32.
float value(int rank, std::size_t i) {
  return static_cast<float>(1000 * (rank + 1)) + static_cast<float>(i);
}

std::vector<float> values_of(int rank, std::size_t size) {
  std::vector<float> values(size);
  for (std::size_t i = 0; i < size; ++i) values[i] = value(rank, i);
  return values;
}

float sum_over_ranks(std::size_t i) {
  float total = 0;
  for (int rank = 0; rank < world().size(); ++rank) total += value(rank, i);
  return total;
}

}  // namespace

TEST_CASE("all_gather puts every rank's part in its place, from elsewhere or in place") {
  const auto ranks = make_mpi_communicator();
  const std::size_t n = 37;
  for (const bool in_place : {false, true}) {
    CAPTURE(in_place);
    std::vector<float> full(n * static_cast<std::size_t>(world().size()), -1);
    auto mine = values_of(world().rank(), n);
    Tensor part = tensor_of(mine);
    if (in_place) {
      const auto begin = world().rank() * static_cast<std::int64_t>(n);
      part = tensor_of(full).slice(0, begin, begin + static_cast<std::int64_t>(n));
      std::copy(mine.begin(), mine.end(), part.as<float>());
    }
    auto request = ranks->all_gather(tensor_of(full), part);
    request.wait();
    CHECK(!request.pending());
    for (std::size_t i = 0; i < full.size(); ++i) {
      REQUIRE(full[i] == value(static_cast<int>(i / n), i % n));
    }
  }
}

TEST_CASE("reduce_scatter leaves each rank its place of the sum and the input as it was") {
  const auto ranks = make_mpi_communicator();
  const std::size_t n = 50;
  auto full = values_of(world().rank(), n * static_cast<std::size_t>(world().size()));
  const auto before = full;
  std::vector<float> part(n, -1);
  ranks->reduce_scatter(tensor_of(part), tensor_of(full)).wait();
  for (std::size_t i = 0; i < n; ++i) {
    REQUIRE(part[i] == sum_over_ranks(static_cast<std::size_t>(world().rank()) * n + i));
  }
  CHECK(full == before);
}

TEST_CASE("several operations may be under way at once, and may be waited for in any order") {
  const auto ranks = make_mpi_communicator();
  std::vector<std::vector<float>> values;
  std::vector<parallel::Request> requests;
  for (std::size_t k = 0; k < 6; ++k) values.push_back(values_of(world().rank(), 100 + k));
  for (auto& x : values) requests.push_back(ranks->all_reduce(tensor_of(x)));
  for (const std::size_t k : {4, 0, 5, 1, 3, 2}) {
    requests[k].wait();
    for (std::size_t i = 0; i < values[k].size(); ++i) REQUIRE(values[k][i] == sum_over_ranks(i));
  }
}

TEST_CASE("sizes that do not fit each other are refused") {
  const auto ranks = make_mpi_communicator();
  std::vector<float> full(static_cast<std::size_t>(world().size()) * 4 + 1);
  std::vector<float> part(4);
  CHECK_THROWS_AS(ranks->all_gather(tensor_of(full), tensor_of(part)), std::logic_error);
  CHECK_THROWS_AS(ranks->reduce_scatter(tensor_of(part), tensor_of(full)), std::logic_error);
}
