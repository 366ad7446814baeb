// A slow rank, slow data and a slowdown are named in the log, once, and stand in metrics.jsonl.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
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
    const auto entry = parse_json(line);
    if (entry["kind"] == "step") health = entry["health"];
  }
  return health;
}

/// Seconds of an undisturbed step here and now: faults are made large against it, since machines differ, and so do
/// builds with sanitizers.
double usual_step() {
  const test::ScratchDirectory scratch;
  const auto result = run_with("0:slow:0", scratch / "run", 6, "");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  std::ifstream in(scratch / "run" / "metrics.jsonl");
  double seconds = 0;
  for (std::string line; std::getline(in, line);) seconds = parse_json(line).value("step_seconds", seconds);
  return seconds;
}

}  // namespace

TEST_CASE("a slow rank is named, with its host, once") {
  const test::ScratchDirectory scratch;
  const double sleep = std::max(0.2, 2 * usual_step());  // in each of a step's two updates
  const auto result =
      run_with(fmt::format("1:slow:{:.3f}", sleep), scratch / "run", 10, "health.straggler=0.5");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::count(result.output, ": rank 1 on ") == 1);
  CHECK(test::contains(result.output, " is slow: the other ranks wait "));
  const auto health = last_health(scratch / "run");
  CHECK(health["slowest_rank"] == 1);
  CHECK(health["slowest_host"] != "");
  CHECK(health["straggler"] == true);
  CHECK(health["lag_seconds"] > sleep);
  REQUIRE(health["rank_seconds"].size() == 3);
  CHECK(health["rank_seconds"][1] > health["rank_seconds"][0].get<double>() + sleep);
  CHECK(health["rank_seconds"][1] > health["rank_seconds"][2].get<double>() + sleep);
}

TEST_CASE("data that come late are told, and which rank waits") {
  const test::ScratchDirectory scratch;
  const double sleep = std::max(0.1, usual_step());  // for each of a step's four samples of a rank
  const auto result = run_with(fmt::format("2:data:{:.3f}", sleep), scratch / "run", 10,
                               "health.straggler=0.5 health.data_wait=0.5");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::contains(result.output, "data come late: rank 2 on "));
  CHECK(test::count(result.output, ": rank 2 on ") >= 2);  // it is the slowest, too, for that reason
  CHECK(test::contains(result.output, "a step for its data"));
  CHECK(last_health(scratch / "run")["data_wait"] == true);
}

TEST_CASE("a throughput that falls below the run's own is told") {
  const test::ScratchDirectory scratch;
  const double sleep = std::max(0.5, 3 * usual_step());
  const auto result =
      run_with(fmt::format("0:slow:{:.3f}:15", sleep), scratch / "run", 20, "health.slowdown=0.6");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::contains(result.output, "tokens a second have fallen to "));
  const auto health = last_health(scratch / "run");
  CHECK(health["slowdown"] == true);
  CHECK(health["pace_ratio"] < 0.4);
}

TEST_CASE("a bit that flips in one rank's memory stops the run, with its place, and nothing of it is saved") {
  const test::ScratchDirectory scratch;
  // After step 4 a checkpoint is written; the bit flips after step 5 and is found after step 6.
  const auto result =
      run_with("1:flip:first:1:5", scratch / "run", 10, "checkpoint.every=4 health.compare_every=3");
  CAPTURE(result.output);
  CHECK(result.status == 4);
  CHECK(test::contains(result.output, "step 6: ranks hold different copies of what is to be alike: "));
  CHECK(test::contains(result.output, "of blocks.0: rank 1 on "));
  CHECK(test::contains(result.output, "differs from the other 2, which are alike"));
  CHECK(
      test::contains(result.output, "step-00000004, was compared before it was written: --resume continues"));
  CHECK(fs::exists(scratch / "run/checkpoints/step-00000004/manifest.json"));
  CHECK_FALSE(fs::exists(scratch / "run/checkpoints/step-00000006"));
  // The end is recorded as a failure.
  const auto record = parse_json(read_whole_file(scratch / "run/starts/end-0001.json"));
  CHECK(record["how"] == "failed");
  CHECK(test::contains(record["message"].get<std::string>(), "ranks hold different copies"));
}

TEST_CASE("a comparison precedes each save") {
  const test::ScratchDirectory scratch;
  const auto result =
      run_with("2:flip:weights:0:4", scratch / "run", 10, "checkpoint.every=4 health.compare_every=1000");
  CAPTURE(result.output);
  CHECK(result.status == 4);
  CHECK(test::contains(result.output, "weights of root: rank 2 on "));
  CHECK(test::contains(result.output, "there is no checkpoint yet"));
  CHECK_FALSE(fs::exists(scratch / "run/checkpoints/step-00000004"));
}

TEST_CASE("with health.differing = go_back the run continues from the last checkpoint, bit for bit") {
  const test::ScratchDirectory scratch;
  const std::string more = "checkpoint.every=4 health.compare_every=2 health.differing=go_back";
  const auto flipped = run_with("1:flip:second:1:6:1", scratch / "run", 9, more);
  CAPTURE(flipped.output);
  REQUIRE(flipped.status == 0);
  CHECK(test::contains(flipped.output, "Training continues from "));
  const auto whole = run_with("1:flip:second:1:6:0", scratch / "whole", 9, more);
  REQUIRE(whole.status == 0);
  const auto losses = [](const fs::path& run) {
    std::ifstream in(run / "metrics.jsonl");
    std::vector<nlohmann::json> found;
    for (std::string line; std::getline(in, line);) {
      const auto entry = parse_json(line);
      if (entry["kind"] == "step") found.push_back({entry["step"], entry["updates"]});
    }
    return found;
  };
  CHECK(losses(scratch / "run") == losses(scratch / "whole"));
  CHECK(losses(scratch / "run").size() == 5);
  const auto noted = test::metrics(scratch / "run", "differing");
  REQUIRE(noted.size() == 1);
  const auto line = parse_json(noted[0]);
  CHECK(line["step"] == 4);
  CHECK(line["found_step"] == 6);
  CHECK(test::contains(line["difference"].get<std::string>(), "second moments of blocks.0: rank 1 on "));
  const auto watched = test::ratplus("watch --once " + (scratch / "run").string());
  CAPTURE(watched.output);
  CHECK(test::contains(watched.output, "went back from step 6 to 4"));
}

TEST_CASE("a bit that flips again ends a run that has gone back") {
  const test::ScratchDirectory scratch;
  const auto result = run_with("1:flip:second:1:6:5", scratch / "run", 9,
                               "checkpoint.every=4 health.compare_every=2 health.differing=go_back");
  CAPTURE(result.output);
  CHECK(result.status == 4);
  CHECK(test::count(result.output, "Training continues from ") == 1);
  CHECK(test::contains(result.output, "training had already continued from step 4"));
}
