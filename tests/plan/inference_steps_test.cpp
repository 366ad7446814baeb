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
  std::string model;
  std::string gpu;
  std::string pattern;
  std::int64_t batch;
  double milliseconds;
};

// T = 4096; of the H200 those of docs/performance.md, 9 % at most from those that set the waits of lib/plan/speeds.h.
const MeasuredStep steps[] = {
    {"1b", "h200", "dense", 1, 1.34},   {"1b", "h200", "dense", 2, 1.80},
    {"1b", "h200", "dense", 8, 3.20},   {"1b", "h200", "dense", 64, 14.1},
    {"1b", "h200", "16,0,4", 1, 1.22},  {"1b", "h200", "16,0,4", 2, 1.34},
    {"1b", "h200", "16,0,4", 8, 1.54},  {"1b", "h200", "16,0,4", 64, 2.34},
    {"1b", "h200", "64,0,4", 1, 1.11},  {"1b", "h200", "64,0,4", 2, 1.31},
    {"1b", "h200", "64,0,4", 8, 1.49},  {"1b", "h200", "64,0,4", 64, 1.85},
    {"1b", "h100", "dense", 64, 19.8},  {"1b", "h100", "16,0,4", 64, 3.07},
    {"1b", "h100", "64,0,4", 64, 2.32}, {"1b", "h100", "16,256,4", 64, 4.28},
    {"7b", "h200", "dense", 1, 5.10},   {"7b", "h200", "dense", 33, 23.6},
    {"7b", "h200", "dense", 48, 31.2},  {"7b", "h200", "64,0,4", 1, 4.40},
    {"7b", "h200", "64,0,4", 33, 6.62}, {"7b", "h200", "64,0,4", 48, 6.47},
    {"7b", "h200", "64,0,4", 64, 6.78},
};

}  // namespace

TEST_CASE("plan_inference: steps of few and many sequences as they were measured") {
  for (const auto& step : steps) {
    CAPTURE(step.model);
    CAPTURE(step.gpu);
    CAPTURE(step.pattern);
    CAPTURE(step.batch);
    const std::array batches{step.batch};
    const auto config = shipped_job("pretrain/" + step.model).model;
    const auto plan = plan_inference(config, model::PatternPlan(parse_pattern(step.pattern)), 4096, batches,
                                     find_gpu(step.gpu));
    const double predicted = 1e3 * plan.steps.front().seconds;
    CHECK(predicted == doctest::Approx(step.milliseconds).epsilon(0.1).scale(0));
    CHECK(plan.steps.front().floor < plan.steps.front().seconds);
  }
}

}  // namespace ratplus::plan
