// The stream of a CUDA backend, for those whose work has to be ordered with it.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace ratplus::cuda {

/// `ops` is a CUDA backend (std::logic_error otherwise).
cudaStream_t stream_of(const Ops& ops);

}  // namespace ratplus::cuda
