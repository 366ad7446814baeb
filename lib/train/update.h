// One update of a training step (docs/model.md, section 14): forward and backward of a batch's micro-batches under one
// pattern, then AdamW.
#pragma once

#include <cstdint>
#include <span>

#include "lib/model/pattern_plan.h"
#include "lib/session/session_parts.h"

namespace ratplus::train {

/// This rank's sequences of a step's batch, host i32 [sequences, T], in whole micro-batches.
struct RankBatch {
  std::span<const std::int32_t> inputs;
  std::span<const std::int32_t> labels;  ///< negative: left out
};

struct UpdateResult {
  double loss = 0;           ///< mean over the counted positions of all ranks
  double gradient_norm = 0;  ///< over all ranks, before clipping
  double loss_sum = 0;       ///< of this rank's counted positions
  bool updated = false;  ///< loss and norm are finite; else the parameters and the optimizer are as they were
};

/// The fault that a test adds to one rank's update: to the factor of its gradient, and to the sum of its losses.
struct UpdateFault {
  double gradient = 0;
  double loss = 0;
};

/// Forward and backward over all micro-batches, then one update with this learning rate, if loss and gradient norm are
/// finite: all ranks see the same two numbers, so that they decide alike. `counted`: positions of the global batch that
/// count; the gradient is that of the mean over them, so it does not depend on how the batch is cut.
UpdateResult run_update(session::SessionParts& parts, const model::PatternPlan& pattern,
                        const RankBatch& batch, std::int64_t counted, double learning_rate,
                        const UpdateFault& fault = {});

}  // namespace ratplus::train
