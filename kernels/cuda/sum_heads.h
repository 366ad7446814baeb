// Sums over heads that share keys.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/tensor.h"

namespace ratplus::cuda {

/// out [B, T, G, P] = the sum, in f32, of the H / G heads of x [B, T, H, P] from head g H / G on, in their order. f32 or bf16.
void sum_neighbouring_heads(const Tensor& out, const Tensor& x, cudaStream_t stream);

}  // namespace ratplus::cuda
