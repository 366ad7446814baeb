#include "parallel/communicator.h"

#include <doctest/doctest.h>

#include <array>
#include <memory>
#include <numeric>
#include <vector>

#include "kernels/cpu/bf16.h"
#include "tests/support/ranks.h"

using namespace ratplus;

namespace {

/// All ranks, in the order of their numbers.
std::unique_ptr<parallel::Communicator> all_ranks() {
  std::vector<int> ranks(static_cast<std::size_t>(world().size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return parallel::make_mpi_communicator(world(), ranks);
}

Tensor tensor_of(std::vector<bf16_t>& values) {
  return {values.data(), DType::bf16, {static_cast<std::int64_t>(values.size())}};
}

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
  const auto ranks = all_ranks();
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
    auto request = ranks->all_gather(tensor_of(full), part, "x");
    request.wait();
    CHECK(!request.pending());
    for (std::size_t i = 0; i < full.size(); ++i) {
      REQUIRE(full[i] == value(static_cast<int>(i / n), i % n));
    }
  }
}

TEST_CASE("reduce_scatter leaves each rank its place of the sum and the input as it was") {
  const auto ranks = all_ranks();
  const std::size_t n = 50;
  auto full = values_of(world().rank(), n * static_cast<std::size_t>(world().size()));
  const auto before = full;
  std::vector<float> part(n, -1);
  ranks->reduce_scatter(tensor_of(part), tensor_of(full), "x").wait();
  for (std::size_t i = 0; i < n; ++i) {
    REQUIRE(part[i] == sum_over_ranks(static_cast<std::size_t>(world().rank()) * n + i));
  }
  CHECK(full == before);
}

TEST_CASE("reduce_scatter in place: each rank's place has its sum, and zeros stay zeros") {
  const auto ranks = all_ranks();
  for (const std::size_t n : {1, 50, 4096}) {
    CAPTURE(n);
    auto full = values_of(world().rank(), n * static_cast<std::size_t>(world().size()));
    const auto is_gap = [](std::size_t i) { return i % 5 == 3; };
    for (std::size_t i = 0; i < full.size(); ++i) full[i] = is_gap(i) ? 0 : full[i];
    const auto begin = world().rank() * static_cast<std::int64_t>(n);
    const Tensor whole = tensor_of(full);
    ranks->reduce_scatter(whole.slice(0, begin, begin + static_cast<std::int64_t>(n)), whole, "x").wait();
    for (std::size_t i = 0; i < full.size(); ++i) {
      if (is_gap(i)) REQUIRE(full[i] == 0);
      if (!is_gap(i) && i / n == static_cast<std::size_t>(world().rank()))
        REQUIRE(full[i] == sum_over_ranks(i));
    }
  }
}

TEST_CASE("several operations may be under way at once, and may be waited for in any order") {
  const auto ranks = all_ranks();
  std::vector<std::vector<float>> values;
  std::vector<parallel::Request> requests;
  for (std::size_t k = 0; k < 6; ++k) values.push_back(values_of(world().rank(), 100 + k));
  for (auto& x : values) requests.push_back(ranks->all_reduce(tensor_of(x), "x"));
  for (const std::size_t k : {4, 0, 5, 1, 3, 2}) {
    requests[k].wait();
    for (std::size_t i = 0; i < values[k].size(); ++i) REQUIRE(values[k][i] == sum_over_ranks(i));
  }
}

TEST_CASE("sizes that do not fit each other are refused") {
  const auto ranks = all_ranks();
  std::vector<float> full(static_cast<std::size_t>(world().size()) * 4 + 1);
  std::vector<float> part(4);
  CHECK_THROWS_AS(ranks->all_gather(tensor_of(full), tensor_of(part), "x"), std::logic_error);
  CHECK_THROWS_AS(ranks->reduce_scatter(tensor_of(part), tensor_of(full), "x"), std::logic_error);
}

TEST_CASE("sums of bf16 are those of the values, rounded to bf16") {
  const auto ranks = all_ranks();
  const std::size_t n = 33;
  std::vector<bf16_t> full(n * static_cast<std::size_t>(world().size()));
  std::vector<bf16_t> part(n);
  // Small integers and their sums are exact in bf16.
  const auto value_of = [](int rank, std::size_t i) {
    return static_cast<float>(rank + 1 + static_cast<int>(i % 3));
  };
  for (std::size_t i = 0; i < full.size(); ++i) full[i] = cpu::to_bf16(value_of(world().rank(), i));
  const auto expected = [&](std::size_t i) {
    float total = 0;
    for (int rank = 0; rank < world().size(); ++rank) total += value_of(rank, i);
    return total;
  };
  ranks->reduce_scatter(tensor_of(part), tensor_of(full), "x").wait();
  for (std::size_t i = 0; i < n; ++i) {
    REQUIRE(cpu::to_float(part[i]) == expected(static_cast<std::size_t>(world().rank()) * n + i));
  }
  ranks->all_reduce(tensor_of(full), "x").wait();
  for (std::size_t i = 0; i < full.size(); ++i) REQUIRE(cpu::to_float(full[i]) == expected(i));
}

TEST_CASE("terms of bf16 are added in float32, in the order of the ranks, and rounded once") {
  const auto ranks = all_ranks();
  const auto size = static_cast<std::size_t>(world().size());
  // Every order of adding, and every rounding between, gives another value.
  const auto term = [](int rank, std::size_t i) {
    constexpr std::array terms = {0x1p24F, 1.0F, -0x1p24F, 3.0F, 0x1p-7F, 257.0F};
    return cpu::to_bf16(terms[static_cast<std::size_t>(rank) % terms.size()] * static_cast<float>(1 + i % 3));
  };
  const auto expected = [&](std::size_t i) {
    float total = 0;
    for (int rank = 0; rank < world().size(); ++rank) total += cpu::to_float(term(rank, i));
    return cpu::to_float(cpu::to_bf16(total));
  };
  const std::size_t n = 21;
  std::vector<std::vector<bf16_t>> values(4, std::vector<bf16_t>(n * size));
  for (auto& x : values) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = term(world().rank(), i);
  }
  std::vector<bf16_t> part(n);
  const auto begin = world().rank() * static_cast<std::int64_t>(n);
  const Tensor in_place = tensor_of(values[3]);
  std::vector<parallel::Request> requests;
  requests.push_back(ranks->all_reduce(tensor_of(values[0]), "x"));
  requests.push_back(ranks->reduce_scatter(tensor_of(part), tensor_of(values[1]), "x"));
  requests.push_back(ranks->all_reduce(tensor_of(values[2]), "x"));
  requests.push_back(
      ranks->reduce_scatter(in_place.slice(0, begin, begin + static_cast<std::int64_t>(n)), in_place, "x"));
  if (world().rank() % 2 == 0) ranks->progress();
  for (const std::size_t k : {2, 0, 1, 3}) requests[k].wait();
  for (std::size_t i = 0; i < n * size; ++i) {
    REQUIRE(cpu::to_float(values[0][i]) == expected(i));
    REQUIRE(cpu::to_float(values[2][i]) == expected(i));
  }
  for (std::size_t i = 0; i < n; ++i) {
    const auto place = static_cast<std::size_t>(begin) + i;
    REQUIRE(cpu::to_float(part[i]) == expected(place));
    REQUIRE(cpu::to_float(values[3][place]) == expected(place));
  }
}

TEST_CASE("groups of ranks exchange among themselves, in the order that was given") {
  // Even and odd ranks, each from the highest to the lowest.
  std::vector<int> group;
  for (int rank = world().size() - 1; rank >= 0; --rank) {
    if (rank % 2 == world().rank() % 2) group.push_back(rank);
  }
  const auto ranks = parallel::make_mpi_communicator(world(), group);
  REQUIRE(ranks->size() == static_cast<int>(group.size()));
  CHECK(group[static_cast<std::size_t>(ranks->rank())] == world().rank());
  std::vector<float> mine = {static_cast<float>(world().rank())};
  std::vector<float> all(group.size());
  ranks->all_gather(tensor_of(all), tensor_of(mine), "x").wait();
  for (std::size_t i = 0; i < group.size(); ++i) CHECK(all[i] == static_cast<float>(group[i]));
}
