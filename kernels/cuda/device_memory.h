// Memory of a GPU, for Buffer. In a build without CUDA every function says so (kernels/no_cuda.cpp).
#pragma once

#include <cstdint>

#include "kernels/device.h"

namespace ratplus::cuda {

/// Zeroed memory on the device, or null where it has not that much left.
void* allocate(Device device, std::int64_t bytes);
void release(Device device, void* data) noexcept;
/// Bytes that the device could still give.
std::int64_t available_memory(Device device);

}  // namespace ratplus::cuda
