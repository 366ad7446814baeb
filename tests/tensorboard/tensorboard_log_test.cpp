#include "lib/run/tensorboard_log.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/support/scratch_directory.h"
#include "tests/tensorboard/event_reader.h"

using namespace ratplus;

namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

run::StepMetrics step(std::int64_t n, double loss) {
  run::HealthMetrics health;
  health.lag_seconds = 0.125;
  return {.step = n,
          .steps = 9,
          .tokens = 100 * n,
          .learning_rate = 1e-3,
          .updates = {{"64,0,0", loss + 1, 0.5}, {"dense", loss, 0.75}},
          .skipped_updates = 2,
          .tokens_per_second = 10,
          .step_seconds = 0.25,
          .share_of_peak = 0.5,
          .memory_bytes = std::int64_t{70} << 30,
          .health = health};
}

/// Steps 1 to 5 with loss 5, killed, and resumed from step 3 with loss 4.
void write_run(const std::filesystem::path& run) {
  {
    run::TensorboardLog log(run, 0);
    for (int n = 1; n <= 5; ++n) log.write(step(n, 5));
    log.write(run::ValidationMetrics{.step = 5, .tokens = 500, .results = {{"dense", 5}}, .seconds = 1});
  }
  run::TensorboardLog log(run, 3);
  log.write(step(4, 4));
  log.write(run::CheckpointMetrics{.step = 4, .path = "p", .seconds = 2, .stall_seconds = 0.5});
  log.write(run::ValidationMetrics{.step = 4, .tokens = 400, .results = {{"16,256,4", 3}}, .seconds = 1});
}

/// What a reader of the run must show: by tag, (step, value).
using Shown = std::map<std::string, std::vector<std::pair<std::int64_t, double>>>;

Shown expected() {
  Shown shown;
  const auto of_steps = [&](const std::string& tag, double before, double resumed) {
    shown[tag] = {{1, before}, {2, before}, {3, before}, {4, resumed}};
  };
  of_steps("loss/64,0,0", 6, 5);
  of_steps("loss/dense", 5, 4);
  of_steps("gradient_norm/64,0,0", 0.5, 0.5);
  of_steps("gradient_norm/dense", 0.75, 0.75);
  of_steps("schedule/learning_rate", 1e-3F, 1e-3F);
  shown["schedule/tokens"] = {{1, 100}, {2, 200}, {3, 300}, {4, 400}};
  of_steps("throughput/tokens_per_second", 10, 10);
  of_steps("throughput/step_seconds", 0.25, 0.25);
  of_steps("throughput/data_wait_seconds", 0, 0);
  of_steps("throughput/data_wait_share", 0, 0);
  of_steps("throughput/share_of_peak", 0.5, 0.5);
  of_steps("memory/memory_bytes", 70.0 * (1 << 30), 70.0 * (1 << 30));
  of_steps("health/skipped_updates", 2, 2);
  of_steps("health/lag_seconds", 0.125, 0.125);
  shown["validation_loss/16,256,4"] = {{4, 3}};
  shown["validation_perplexity/16,256,4"] = {{4, static_cast<float>(std::exp(3.0))}};
  shown["validation/seconds"] = {{4, 1}};
  shown["checkpoint/seconds"] = {{4, 2}};
  shown["checkpoint/stall_seconds"] = {{4, 0.5}};
  shown["checkpoint/copy_seconds"] = {{4, 0}};
  return shown;
}

/// All files in order; a start drops what is of its step or later.
Shown read_run(const std::filesystem::path& run) {
  Shown shown;
  for (const auto& file : test::event_files(run / "tensorboard")) {
    for (const auto& event : test::read_events(file)) {
      if (event.session_status == 1) {
        for (auto& [tag, points] : shown)
          std::erase_if(points, [&](auto point) { return point.first >= event.step; });
      }
      for (const auto& scalar : event.scalars) shown[scalar.tag].emplace_back(event.step, scalar.value);
    }
  }
  std::erase_if(shown, [](const auto& entry) { return entry.second.empty(); });
  return shown;
}

}  // namespace

TEST_CASE("a resumed run's metrics: what was lost is dropped, the rest is as in metrics.jsonl") {
  const test::ScratchDirectory run;
  write_run(run.path());
  CHECK(test::event_files(run / "tensorboard").size() == 2);
  CHECK(read_run(run.path()) == expected());
}

TEST_CASE("what is not known is left out, a diverged loss is not") {
  const test::ScratchDirectory run;
  {
    run::TensorboardLog log(run.path(), 0);
    auto metrics = step(1, unknown);
    metrics.share_of_peak = unknown;
    log.write(metrics);
  }
  const auto shown = read_run(run.path());
  CHECK_FALSE(shown.contains("throughput/share_of_peak"));
  CHECK_FALSE(shown.contains("memory/host_memory_bytes"));
  REQUIRE(shown.contains("loss/dense"));
  CHECK(std::isnan(shown.at("loss/dense").front().second));
}

TEST_CASE("TensorBoard's own reader shows every scalar") {
  if (std::string_view(RATPLUS_TENSORBOARD_PYTHON).empty()) {
    MESSAGE("not asked: no Python with tensorboard was found when this was configured");
    return;
  }
  const test::ScratchDirectory run;
  write_run(run.path());
  const auto json = run / "read.json";
  const std::string command =
      fmt::format("{} {}/tests/tensorboard/read_events.py {} > {}", RATPLUS_TENSORBOARD_PYTHON,
                  RATPLUS_SOURCE_DIR, (run / "tensorboard").string(), json.string());
  REQUIRE(std::system(command.c_str()) == 0);
  Shown shown;
  const auto read = parse_json(read_whole_file(json));
  for (const auto& [tag, points] : read.items()) {
    for (const auto& point : points) shown[tag].emplace_back(point[0], point[1]);
  }
  // It forgets no tag that once was there: that of the lost validation is empty.
  std::erase_if(shown, [](const auto& entry) { return entry.second.empty(); });
  CHECK(shown == expected());
}
