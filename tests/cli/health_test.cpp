// A slow rank, slow data and a slowdown are named in the log, once, and stand in metrics.jsonl.
#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/error.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// A run on 3 ranks of so many steps with this fault, with warnings that a busy machine does not set off.
test::Result run_with(const std::string& fault, const fs::path& run, int steps, const std::string& more) {
  const auto& playground = test::Playground::get();
  return test::shell(fmt::format(
      "RATPLUS_TEST_FAULT={} {}", fault,
      test::command(fmt::format("train {} --set job.directory={} data.directory={} schedule.steps={} "
                                "log.every=2 checkpoint.every=0 health.straggler=0 health.slowdown=0 "
                                "health.data_wait=0 {}",
                                playground.job.string(), run.string(), playground.data.string(), steps, more),
                    3)));
}

nlohmann::json last_health(const fs::path& run) {
  std::ifstream in(run / "metrics.jsonl");
  nlohmann::json health;
  for (std::string line; std::getline(in, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry["kind"] == "step") health = entry["health"];
  }
  return health;
}

}  // namespace

TEST_CASE("a slow rank is named, with its host, once") {
  const test::ScratchDirectory scratch;
  const auto result = run_with("1:slow:0.2", scratch / "run", 10, "health.straggler=0.5");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::count(result.output, "warning: ") == 1);
  CHECK(test::count(result.output, "warning: step 4: rank 1 on ") == 1);
  const auto health = last_health(scratch / "run");
  CHECK(health["slowest_rank"] == 1);
  CHECK(health["slowest_host"] != "");
  CHECK(health["straggler"] == true);
  CHECK(health["lag_seconds"] > 0.3);  // it sleeps 0.4 s in the two halves of a step
  REQUIRE(health["rank_seconds"].size() == 3);
  CHECK(health["rank_seconds"][1] > health["rank_seconds"][0].get<double>() + 0.3);
  CHECK(health["rank_seconds"][1] > health["rank_seconds"][2].get<double>() + 0.3);
}

TEST_CASE("data that come late are told, and which rank waits") {
  const test::ScratchDirectory scratch;
  const auto result =
      run_with("2:data:0.1", scratch / "run", 10, "health.straggler=0.5 health.data_wait=0.5");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::count(result.output, "data come late: rank 2 on ") == 1);
  CHECK(test::count(result.output, ": rank 2 on ") == 2);  // it is the slowest, too, for that reason
  CHECK(test::contains(result.output, "a step for its data"));
  CHECK(last_health(scratch / "run")["data_wait"] == true);
}

TEST_CASE("a throughput that falls below the run's own is told") {
  const test::ScratchDirectory scratch;
  const auto result = run_with("0:slow:0.5:15", scratch / "run", 20, "health.slowdown=0.6");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::count(result.output, "tokens a second have fallen to ") == 1);
  const auto health = last_health(scratch / "run");
  CHECK(health["slowdown"] == true);
  CHECK(health["pace_ratio"] < 0.4);
}
