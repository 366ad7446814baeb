// Checks of the status that CUDA's functions return.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/checks.h"

namespace ratplus::cuda {

/// Throws Error unless a CUDA call succeeded; `what` says what was being done.
void check_cuda(cudaError_t status, const char* what);
/// After each kernel launch: an impossible launch is reported here, a fault of an earlier one wherever it is seen.
inline void check_launch(const char* kernel) {
  check_cuda(cudaGetLastError(), kernel);
}

}  // namespace ratplus::cuda
