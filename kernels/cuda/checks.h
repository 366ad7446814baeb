// The checks of kernels/checks.h for device memory, and of what the CUDA libraries return.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/checks.h"

namespace ratplus::cuda {

using Shape = CheckedShape;

inline void check(const Tensor& tensor, DType dtype, Shape shape, const char* op, const char* name) {
  check_tensor(tensor, DeviceKind::cuda, dtype, shape, op, name);
}

inline void check_rank(const Tensor& tensor, DType dtype, int rank, const char* op, const char* name) {
  ratplus::check_rank(tensor, DeviceKind::cuda, dtype, rank, op, name);
}

/// Throws Error unless a CUDA call succeeded; `what` says what was being done.
void check_cuda(cudaError_t status, const char* what);
/// After each kernel launch: an impossible launch is reported here, a fault of an earlier one wherever it is seen.
inline void check_launch(const char* kernel) {
  check_cuda(cudaGetLastError(), kernel);
}

}  // namespace ratplus::cuda
