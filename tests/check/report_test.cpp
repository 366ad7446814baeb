// What stands out in the reports of ranks, by each rule, and how they are listed.
#include "lib/check/report.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace ratplus::check {
namespace {

/// Ranks of two hosts, four on each, all alike.
std::vector<RankReport> alike() {
  std::vector<RankReport> ranks(8);
  for (int r = 0; r < 8; ++r) {
    auto& rank = ranks[static_cast<std::size_t>(r)];
    rank.rank = r;
    rank.node = r / 4;
    rank.host = r < 4 ? "a" : "b";
    rank.device = fmt::format("cuda:{}", r % 4);
    rank.device_name = "NVIDIA H100 80GB HBM3";
    rank.values[Quantity::products] = 700e12 + 1e12 * r;
    rank.values[Quantity::copies] = 3e12;
    rank.values[Quantity::link] = 270e9;
    rank.values[Quantity::network] = 40e9;
    rank.values[Quantity::clock] = 1e-4 * r;
    rank.values[Quantity::locked_memory] = HUGE_VAL;
    rank.values[Quantity::corrected_errors] = r;
    rank.values[Quantity::uncorrected_errors] = 0;
    rank.versions = {{"ratplus", "0.1"}, {"NCCL", "2.28.3"}};
  }
  return ranks;
}

std::string only_finding(const std::vector<RankReport>& ranks) {
  const auto found = judge(ranks);
  REQUIRE(found.size() == 1);
  return found[0].text;
}

TEST_CASE("nothing stands out where all ranks are alike, and one rank has nothing to be compared with") {
  CHECK(judge(alike()).empty());
  auto one = alike();
  one.resize(1);
  CHECK(judge(one).empty());
}

TEST_CASE("a rate below 80 % of the median is named, with its rank and host") {
  auto ranks = alike();
  ranks[5].values[Quantity::products] = 0.81 * 704e12;
  CHECK(judge(ranks).empty());
  ranks[5].values[Quantity::products] = 310e12;
  CHECK(only_finding(ranks) ==
        "products of rank 5 on b: 310 TFLOP/s, 44 % of the median 703 TFLOP/s (below 80 %)");
  ranks[5].values[Quantity::products].reset();  // not told is no outlier
  CHECK(judge(ranks).empty());
}

TEST_CASE("clocks apart, limits, and errors that were counted are named") {
  auto ranks = alike();
  ranks[7].values[Quantity::clock] = -0.75;
  CHECK(only_finding(ranks).starts_with(
      "clock, beside rank 0's of rank 7 on b: -750 ms, more than 500 ms from the"));
  ranks = alike();
  ranks[2].values[Quantity::locked_memory] = 65536;
  CHECK(only_finding(ranks) ==
        "memory that may be locked of rank 2 on a: 64.0 KiB, 0 % of the median unlimited (below 80 %)");
  ranks = alike();
  ranks[0].values[Quantity::uncorrected_errors] = 2;
  CHECK(only_finding(ranks) == "ECC errors, not corrected of rank 0 on a: 2, not 0");
  ranks = alike();
  ranks[3].values[Quantity::xid_errors] = 1;
  CHECK(only_finding(ranks) == "Xid errors of the driver of rank 3 on a: 1, not 0");
}

TEST_CASE("versions that differ are listed with their hosts, the commonest first") {
  auto ranks = alike();
  for (int r = 4; r < 8; ++r) ranks[static_cast<std::size_t>(r)].versions["NCCL"] = "2.27.7";
  ranks[7].versions["NCCL"] = "2.28.3";
  CHECK(only_finding(ranks) == "version of NCCL: 2.28.3 on a, b; 2.27.7 on b");
  ranks = alike();
  ranks[6].versions.erase("NCCL");
  CHECK(only_finding(ranks) == "version of NCCL: 2.28.3 on a, b; none on b");
}

TEST_CASE("a problem of all ranks is one line, and of some it names them") {
  auto ranks = alike();
  for (auto& rank : ranks) rank.problems = {"data: not there"};
  CHECK(only_finding(ranks) == "data: not there");
  for (auto& rank : ranks) {
    if (rank.rank != 3) rank.problems.clear();
  }
  CHECK(only_finding(ranks) == "rank 3 on a: data: not there");
}

TEST_CASE("reports travel as JSON, unlimited and untold values too") {
  auto rank = alike()[3];
  rank.not_told["xid_errors"] = "may not be read";
  rank.problems = {"one"};
  const auto again = parse_rank(to_json(rank));
  CHECK(to_json(again) == to_json(rank));
  CHECK(again.values[Quantity::locked_memory] == HUGE_VAL);
  CHECK_FALSE(again.values[Quantity::xid_errors].has_value());
  CHECK(again.values[Quantity::products] == rank.values[Quantity::products]);
}

TEST_CASE("the table has the least with its rank, the median and the most, and what was not told") {
  auto ranks = alike();
  for (auto& rank : ranks) rank.not_told["data_read_bytes_per_second"] = "less than 4 MiB of data";
  ranks[2].values[Quantity::copies].reset();
  ranks[2].not_told["copies_bytes_per_second"] = "broken";
  const auto rows = table(ranks);
  const auto row = [&](const std::string& title) {
    const auto found = std::ranges::find(rows, title, [](const auto& cells) { return cells[0]; });
    REQUIRE(found != rows.end());
    return *found;
  };
  CHECK(row("products") ==
        std::vector<std::string>{"products", "700 TFLOP/s", "rank 0 on a", "704 TFLOP/s", "707 TFLOP/s", ""});
  CHECK(row("copies in memory").back() == "1 rank: broken");
  CHECK(row("data, read") ==
        std::vector<std::string>{"data, read", "-", "", "-", "-", "less than 4 MiB of data"});
}

TEST_CASE("what a plan reads: nodes, GPUs of a node, medians") {
  auto ranks = alike();
  const auto json = cluster_of(ranks);
  CHECK(json["nodes"] == 2);
  CHECK(json["gpus_per_node"] == 4);
  CHECK(json["gpu_title"] == "NVIDIA H100 80GB HBM3");
  CHECK(json["link_bytes_per_second"] == 270e9);
  for (auto& rank : ranks) rank.values[Quantity::group] = 250e9;
  CHECK(cluster_of(ranks)["link_bytes_per_second"] == 250e9);
}

}  // namespace
}  // namespace ratplus::check
