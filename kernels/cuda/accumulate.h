// Sums in float32 that are handed on from call to call.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/tensor.h"

namespace ratplus::cuda {

/// sum += x, then x = sum in its own type (f32 or bf16). Equal shapes, sum f32.
void accumulate(const Tensor& sum, const Tensor& x, cudaStream_t stream);

}  // namespace ratplus::cuda
