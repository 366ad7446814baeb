// Rows of a matrix, as kernels and cuBLASLt are told of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/tensor.h"

namespace ratplus::cuda {

/// Distance of the rows of a matrix, in elements; the distance of a single row does not matter, but has to be valid.
inline std::int64_t row_stride(const Tensor& x) {
  return x.size(0) == 1 ? std::max<std::int64_t>(x.size(1), 1) : x.stride(0);
}

}  // namespace ratplus::cuda
