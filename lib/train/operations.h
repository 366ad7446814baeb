// What a step costs in operations, and what a processor can do: a run's share of the peak.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/tensor.h"
#include "lib/train/trainer.h"

namespace ratplus::train {

/// Operations of a half's forward and backward over `sequences` windows of the job: 6 N a token for the products with
/// the N parameters, 12 P a head and attended (query, key) pair (two products forward and four backward of 2 P each).
/// What a fused kernel or recomputation makes again is not counted.
double half_operations(const Half& half, const config::JobConfig& job, std::int64_t sequences,
                       std::int64_t parameters);

/// Operations a second of dense bfloat16 products by the maker's datasheet (H100, H200, A100), or 0 where it is not
/// known. `device` is the processor's own name.
double datasheet_peak(const std::string& device, DType compute);

}  // namespace ratplus::train
