// What a processor can do, for a run's share of it.
#pragma once

#include <string>

#include "kernels/tensor.h"

namespace ratplus::train {

/// Operations a second of dense bfloat16 products by the maker's datasheet (H100, H200, A100), or 0 where it is not
/// known. `device` is the processor's own name.
double datasheet_peak(const std::string& device, DType compute);

}  // namespace ratplus::train
