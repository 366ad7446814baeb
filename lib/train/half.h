// One half of a training step: all micro-batches of a batch under one pattern, then one update.
#pragma once

#include <cstdint>
#include <span>

#include "lib/model/pattern_plan.h"
#include "lib/train/session_parts.h"

namespace ratplus::train {

/// This rank's sequences of a step's batch, host i32 [sequences, T], in whole micro-batches.
struct RankBatch {
  std::span<const std::int32_t> inputs;
  std::span<const std::int32_t> labels;  ///< negative: left out
};

struct HalfResult {
  double loss_sum = 0;       ///< of this rank's counted positions
  double gradient_norm = 0;  ///< over all ranks, before clipping
};

/// Forward and backward over all micro-batches, then one update with this learning rate. `counted`: positions of the
/// global batch that count; the gradient is that of the mean over them, so it does not depend on how the batch is cut.
HalfResult run_half(SessionParts& parts, const model::PatternPlan& pattern, const RankBatch& batch,
                    std::int64_t counted, double learning_rate);

}  // namespace ratplus::train
