// The operations of a training step, as "share of peak" counts them (docs/model.md, section 20).
#pragma once

#include <cstdint>

#include "lib/model/config.h"
#include "lib/model/pattern_plan.h"

namespace ratplus::model {

/// Forward and backward of `sequences` of `tokens` under a pattern: 6 a parameter and token for the products, 12 d an
/// attended pair and layer for attention. What is made again beyond them is not counted.
double update_operations(const ModelConfig& model, const PatternPlan& pattern, std::int64_t parameters,
                         std::int64_t sequences, std::int64_t tokens);

/// Operations that the mathematics of attention needs, forward and backward, in one layer of `sequences` of `tokens`:
/// 12 P an attended pair and head.
double attention_operations(const ModelConfig& model, HeadPatterns patterns, std::int64_t sequences,
                            std::int64_t tokens);

}  // namespace ratplus::model
