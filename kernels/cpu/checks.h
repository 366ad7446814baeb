// The checks of kernels/checks.h for host memory.
#pragma once

#include "kernels/checks.h"

namespace ratplus::cpu {

using Shape = CheckedShape;

inline void check(const Tensor& tensor, DType dtype, Shape shape, const char* op, const char* name) {
  check_tensor(tensor, DeviceKind::cpu, dtype, shape, op, name);
}

inline void check_rank(const Tensor& tensor, DType dtype, int rank, const char* op, const char* name) {
  ratplus::check_rank(tensor, DeviceKind::cpu, dtype, rank, op, name);
}

}  // namespace ratplus::cpu
