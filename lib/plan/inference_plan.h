// InferencePlan: memory, largest batch and times of generation on a GPU, before one is asked for.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/model/config.h"
#include "lib/model/pattern_plan.h"
#include "lib/plan/cluster.h"

namespace ratplus::plan {

struct InferenceStep {
  std::int64_t batch = 0;  ///< sequences
  bool fits = false;
  double seconds = 0;  ///< of a step at the end of the sequences, where it fits
  double floor = 0;    ///< lib/infer/floor.h, at the rates that a large product and a large copy reach
};

struct InferencePlan {
  std::int64_t length = 0;  ///< tokens of a sequence
  std::int64_t weight_bytes = 0;
  std::int64_t sequence_bytes = 0;        ///< of a sequence's cache and states
  std::int64_t other_bytes = 0;           ///< of the engine with one sequence, without its cache
  std::int64_t available = 0;             ///< bytes of the GPU
  std::int64_t largest = 0;               ///< sequences that fit; 0: not one
  std::vector<InferenceStep> steps = {};  ///< of the batches asked for, then of the largest
  double prompt_seconds = 0;              ///< of one prompt of this length
  double prompt_floor = 0;
};

/// Weights in bfloat16. The memory is counted by the engine's own objects, and the times by going through its own calls
/// (ModelledOps). prefix_bytes are those of EngineSettings; throws Error where they are too few.
InferencePlan plan_inference(const model::ModelConfig& config, const model::PatternPlan& plan,
                             std::int64_t length, std::span<const std::int64_t> batches, const Gpu& gpu,
                             std::int64_t prefix_bytes = 0);

}  // namespace ratplus::plan
