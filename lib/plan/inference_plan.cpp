#include "lib/plan/inference_plan.h"

#include <algorithm>
#include <memory>

#include "lib/infer/engine.h"
#include "lib/infer/floor.h"
#include "lib/infer/inference.h"
#include "lib/plan/modelled_ops.h"
#include "lib/plan/speeds.h"
#include "lib/session/session_parts.h"

namespace ratplus::plan {
namespace {

/// An engine that computes nothing.
class ModelledEngine {
 public:
  ModelledEngine(const model::ModelConfig& config, const model::PatternPlan& plan,
                 const infer::EngineSettings& settings, const Gpu& gpu)
      : ops_(gpu, DType::bf16, true, 1, time_), weight_memory_(ops_.device()), memory_(ops_.device()) {
    weights_ = std::make_unique<infer::Weights>(config, ops_, weight_memory_);
    engine_ = std::make_unique<infer::Engine>(plan, settings, *weights_, ops_, memory_);
    memory_.allocate(DType::u8, {ops_.scratch_bytes(infer::Pass::op_shapes(config, settings.tokens))});
  }

  std::int64_t weight_bytes() const { return weight_memory_.total_bytes(); }
  std::int64_t bytes() const { return memory_.total_bytes(); }
  infer::Engine& engine() { return *engine_; }
  double now() const { return time_.now(); }

 private:
  ModelledTime time_;
  ModelledOps ops_;
  Arena weight_memory_, memory_;
  std::unique_ptr<infer::Weights> weights_;
  std::unique_ptr<infer::Engine> engine_;
};

infer::EngineSettings settings_of(std::int64_t length, std::int64_t batch, std::int64_t prefix_bytes) {
  return {.tokens = length,
          .slots = batch,
          .sequences = static_cast<double>(batch),
          .rows = std::min<std::int64_t>(length, 4096),
          .prefix_bytes = prefix_bytes};
}

}  // namespace

InferencePlan plan_inference(const model::ModelConfig& config, const model::PatternPlan& plan,
                             std::int64_t length, std::span<const std::int64_t> batches, const Gpu& gpu,
                             std::int64_t prefix_bytes) {
  infer::Engine::check_prefix_bytes(config, plan, settings_of(length, 1, prefix_bytes), DType::bf16);
  const infer::CacheShape shape(config, plan, length);
  constexpr infer::Types types{DType::bf16, DType::bf16};
  const infer::Rates rates{gpu.bf16_rate * gpu.pace * speeds::product_share,
                           gpu.bandwidth * speeds::copy_share};
  const auto engine_of = [&](std::int64_t batch) {
    return std::make_unique<ModelledEngine>(config, plan, settings_of(length, batch, prefix_bytes), gpu);
  };
  InferencePlan result{.length = length, .sequence_bytes = shape.sequence_bytes(length, DType::bf16)};
  const auto one = engine_of(1);
  result.weight_bytes = one->weight_bytes();
  result.other_bytes = one->bytes() - result.sequence_bytes;
  result.available = gpu.memory - session::gpu_reserve;
  result.largest =
      infer::largest_fitting(infer::EngineRequest::most_slots, result.available - result.weight_bytes,
                             [&](std::int64_t batch) { return engine_of(batch)->bytes(); });
  const std::vector<std::int32_t> prompt(static_cast<std::size_t>(length), 0);
  one->engine().add({.prompt = prompt, .max_tokens = 1, .sampling = {.temperature = 0}});
  while (!one->engine().idle()) one->engine().step();
  result.prompt_seconds = one->now();
  result.prompt_floor = infer::prompt_floor(config, shape, types, length, rates).seconds();
  std::vector<std::int64_t> all(batches.begin(), batches.end());
  if (result.largest > 0) all.push_back(result.largest);
  for (const auto batch : all) {
    InferenceStep step{.batch = batch, .fits = batch <= result.largest};
    step.floor = infer::step_floor(config, shape, types, batch, length - 1, rates).seconds();
    if (step.fits) {
      const auto engine = engine_of(batch);
      for (std::int64_t i = 0; i < batch; ++i) engine->engine().add_at(length - 1, 1);
      const double before = engine->now();
      engine->engine().step();
      step.seconds = engine->now() - before;
    }
    result.steps.push_back(step);
  }
  return result;
}

}  // namespace ratplus::plan
