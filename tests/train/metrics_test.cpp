#include "lib/run/metrics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/parse_json.h"
#include "lib/train/trainer.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

namespace {

std::vector<nlohmann::json> read_lines(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(parse_json(line));
  return lines;
}

run::StepMetrics step(std::int64_t n) {
  return {.step = n,
          .steps = 9,
          .tokens = 100 * n,
          .learning_rate = 1e-3,
          .updates = {{"64,0,0", 5.25, 0.5}, {"dense", 5.0, 0.75}},
          .tokens_per_second = 10};
}

}  // namespace

TEST_CASE("a line a report, with everything in it") {
  const test::ScratchDirectory run;
  {
    run::MetricsFile file(run.path(), 0);
    file.write(step(1));
    file.write(run::ValidationMetrics{.step = 1, .tokens = 100, .results = {{"dense", 0.0}}, .seconds = 1});
    file.write(run::CheckpointMetrics{.step = 1, .path = "p", .seconds = 2});
    file.write(run::NotFiniteMetrics{2, 1, {"dense", std::nan(""), 1.5, false}, "f"});
    auto judged = step(2);
    judged.skipped_updates = 1;
    judged.updates[1] = {"dense", std::nan(""), 1.5, false};
    judged.health = run::HealthMetrics{.rank_seconds = {0.123456, 2}, .slowest_rank = 1, .slowest_host = "b"};
    file.write(judged);
  }
  const auto lines = read_lines(run / "metrics.jsonl");
  REQUIRE(lines.size() == 5);
  for (const auto& line : lines) CHECK(line["time"] > 1e9);
  CHECK(lines[0]["kind"] == "step");
  CHECK(lines[0]["skipped_updates"] == 0);
  CHECK(!lines[0]["updates"][1].contains("updated"));
  CHECK(lines[3]["kind"] == "not_finite");
  CHECK(lines[3]["update"] == 2);
  CHECK(lines[3]["loss"].is_null());
  CHECK(lines[3]["file"] == "f");
  CHECK(lines[4]["skipped_updates"] == 1);
  CHECK(lines[4]["updates"][1]["updated"] == false);
  CHECK(lines[4]["health"]["rank_seconds"] == nlohmann::json{0.1235, 2});
  CHECK(lines[4]["health"]["slowest_rank"] == 1);
  CHECK(lines[0]["updates"][1]["pattern"] == "dense");
  CHECK(lines[0]["updates"][0]["loss"] == 5.25);
  CHECK(lines[0]["updates"][1]["gradient_norm"] == 0.75);
  CHECK(lines[1]["results"][0]["perplexity"] == 1.0);
  CHECK(lines[2]["path"] == "p");
}

TEST_CASE("a resumed run keeps what was before its step and drops what came after, cut lines too") {
  const test::ScratchDirectory run;
  {
    run::MetricsFile file(run.path(), 0);
    for (int n = 1; n <= 5; ++n) file.write(step(n));
  }
  std::ofstream(run / "metrics.jsonl", std::ios::app) << R"({"kind":"step","ste)";
  {
    run::MetricsFile file(run.path(), 3);
    file.write(step(4));
  }
  const auto lines = read_lines(run / "metrics.jsonl");
  REQUIRE(lines.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(lines[i]["step"] == i + 1);
}

TEST_CASE("lines that are no metrics are dropped as cut ones are, and stop no resumed run") {
  const std::vector<std::string> others = {"5",
                                           "null",
                                           "\"step\"",
                                           "[]",
                                           "{}",
                                           R"({"kind":"step","step":null})",
                                           R"({"kind":"step","step":"2"})",
                                           R"({"kind":"checkpoint","step":2.5})",
                                           R"({"kind":7,"step":2})",
                                           R"({"kind":null,"step":2})",
                                           R"({"step":2})",
                                           R"({"kind":"not_finite","step":4,"update":null})",
                                           R"({"kind":"not_finite","step":4,"update":"1"})",
                                           R"({"kind":"not_finite","step":4,"half":-1})"};
  for (const auto& other : others) {
    CAPTURE(other);
    const test::ScratchDirectory run;
    {
      run::MetricsFile file(run.path(), 0);
      file.write(step(1));
    }
    std::ofstream(run / "metrics.jsonl", std::ios::app) << other << '\n';
    {
      run::MetricsFile file(run.path(), 3, 1);
      CHECK(file.told_step() == 0);
      file.write(step(4));
    }
    const auto lines = read_lines(run / "metrics.jsonl");
    REQUIRE(lines.size() == 2);
    CHECK(lines[1]["step"] == 4);
  }
}

TEST_CASE("the newest save that the file told of is known, though it is behind the step that is resumed") {
  const test::ScratchDirectory run;
  CHECK(run::MetricsFile(run.path(), 0).told_step() == 0);
  {
    run::MetricsFile file(run.path(), 0);
    for (const std::int64_t n : {4, 8}) {
      file.write(step(n));
      file.write(run::CheckpointMetrics{.step = n, .path = "x"});
    }
    file.write(step(9));
  }
  CHECK(run::MetricsFile(run.path(), 4).told_step() == 8);
  CHECK(run::MetricsFile(run.path(), 4).told_step() == 4);
}

TEST_CASE("metrics that cannot be read, or not to their end, are left as they are") {
  const test::ScratchDirectory run;
  const auto file = run / "metrics.jsonl";
  // A read at the beginning of this file fails, as of a disk with a fault; a link to itself cannot be opened.
  for (const auto& to : {std::filesystem::path("/proc/self/mem"), file}) {
    std::filesystem::create_symlink(to, file);
    CHECK(test::contains(test::message_of([&] { const run::MetricsFile resumed(run.path(), 3); }),
                         file.string() + ": cannot be read"));
    CHECK(std::filesystem::is_symlink(file));
    CHECK(run.files() == std::vector<std::string>{"metrics.jsonl"});
    std::filesystem::remove(file);
  }
  std::filesystem::create_directory(file);
  CHECK(test::contains(test::message_of([&] { const run::MetricsFile resumed(run.path(), 3); }),
                       file.string() + ": cannot be read (Is a directory)"));
}

TEST_CASE("a run resumed in the middle of a step keeps what it left out of that step's first update") {
  const test::ScratchDirectory run;
  const run::UpdateMetrics left_out{"dense", 5, std::nan(""), false};
  {
    run::MetricsFile file(run.path(), 0);
    file.write(step(1));
    file.write(run::NotFiniteMetrics{2, 0, left_out, "first"});
    file.write(run::NotFiniteMetrics{2, 1, left_out, ""});
    file.write(step(2));
  }
  { const run::MetricsFile file(run.path(), 1, 1); }
  auto lines = read_lines(run / "metrics.jsonl");
  REQUIRE(lines.size() == 2);
  CHECK(lines[1]["file"] == "first");
  { const run::MetricsFile file(run.path(), 1); }
  lines = read_lines(run / "metrics.jsonl");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["kind"] == "step");
}

TEST_CASE("of a step resumed in its middle, only what is done here counts for the throughput") {
  const std::vector<double> updates = {1, 3};
  CHECK(train::share_ahead(updates, 0) == 1);
  CHECK(train::share_ahead(updates, 1) == 0.75);
  CHECK(train::share_ahead(std::vector<double>{2}, 0) == 1);
}
