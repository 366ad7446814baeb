// Memory of a GPU, for Buffer, and host memory that it copies to, for HostMemory. In a build without CUDA every function says so (kernels/no_cuda.cpp).
#pragma once

#include <cstdint>

#include "kernels/device.h"

namespace ratplus::cuda {

/// Zeroed memory on the device, or null where it has not that much left.
void* allocate(Device device, std::int64_t bytes);
void release(Device device, void* data) noexcept;
/// Bytes that the device could still give.
std::int64_t available_memory(Device device);

/// Locks the pages of host memory, so that the device copies to and from them without a stop. False where the system
/// does not allow that much (a limit, a container): copies then work as well, only slower.
bool lock_pages(Device device, void* host, std::int64_t bytes);
void unlock_pages(Device device, void* host) noexcept;

}  // namespace ratplus::cuda
