// Steps of inference by plan_inference beside those of docs/performance.md, "Generation".
#include <doctest/doctest.h>

#include <array>
#include <string>

#include "lib/model/pattern_plan.h"
#include "lib/plan/inference_plan.h"
#include "tests/plan/jobs.h"

namespace ratplus::plan {
namespace {

struct MeasuredStep {
  std::string gpu;
  std::string pattern;
  std::int64_t batch;
  double milliseconds;
};

// 1b at T = 4096; of the H200 those of docs/performance.md, 9 % at most from those that set the waits of lib/plan/speeds.h.
const MeasuredStep steps[] = {
    {"h200", "dense", 1, 1.34},     {"h200", "dense", 2, 1.80},   {"h200", "dense", 8, 3.20},
    {"h200", "dense", 64, 14.1},    {"h200", "16,0,4", 1, 1.22},  {"h200", "16,0,4", 2, 1.34},
    {"h200", "16,0,4", 8, 1.54},    {"h200", "16,0,4", 64, 2.34}, {"h200", "64,0,4", 1, 1.11},
    {"h200", "64,0,4", 2, 1.31},    {"h200", "64,0,4", 8, 1.49},  {"h200", "64,0,4", 64, 1.85},
    {"h100", "dense", 64, 19.8},    {"h100", "16,0,4", 64, 3.07}, {"h100", "64,0,4", 64, 2.32},
    {"h100", "16,256,4", 64, 4.28},
};

}  // namespace

TEST_CASE("plan_inference: steps of few and many sequences as they were measured") {
  const auto config = shipped_job("pretrain/1b").model;
  for (const auto& step : steps) {
    CAPTURE(step.gpu);
    CAPTURE(step.pattern);
    CAPTURE(step.batch);
    const std::array batches{step.batch};
    const auto plan = plan_inference(config, model::PatternPlan(parse_pattern(step.pattern)), 4096, batches,
                                     find_gpu(step.gpu));
    const double predicted = 1e3 * plan.steps.front().seconds;
    CHECK(predicted == doctest::Approx(step.milliseconds).epsilon(0.1).scale(0));
    CHECK(plan.steps.front().floor < plan.steps.front().seconds);
  }
}

}  // namespace ratplus::plan
