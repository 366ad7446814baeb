// Whether two pieces of device memory hold the same bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace ratplus::cuda {

/// *differs (device memory) becomes non-zero if the two differ within `bytes`; else it is left alone. 4-byte aligned,
/// bytes a multiple of 2.
void compare_bits(unsigned* differs, const void* a, const void* b, std::int64_t bytes, cudaStream_t stream);

}  // namespace ratplus::cuda
