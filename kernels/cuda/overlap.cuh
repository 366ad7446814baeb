// Overlap: kernels whose launch does not wait for the end of the one before (programmatic dependent launch, on Hopper and
// later): they begin beside it, and wait for it where they first need its results.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstddef>

#include "kernels/cuda/checks.h"

namespace ratplus::cuda {

/// Lets the next kernel begin beside this one, so that it fetches what no kernel writes.
__device__ __forceinline__ void let_next_kernel_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}
/// Waits until all kernels before this one have ended: called before it reads or writes what they may write or read.
__device__ __forceinline__ void wait_for_kernels_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

template <typename>
__global__ void overlap_probe_kernel() {}

/// Whether the kernels that the current GPU runs do: without the two functions above, those that were compiled for an older
/// one must not.
inline bool kernels_overlap() {
  constexpr int most_known = 64;
  static std::array<std::atomic<signed char>, most_known>
      known{};  // 1: they do, -1: they do not, 0: not asked yet
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  if (device < most_known && known[static_cast<std::size_t>(device)] != 0)
    return known[static_cast<std::size_t>(device)] > 0;
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, overlap_probe_kernel<void>), "asking for a kernel");
  const bool can = attributes.ptxVersion >= 90;
  if (device < most_known) known[static_cast<std::size_t>(device)] = can ? 1 : -1;
  return can;
}

/// Launches a kernel that calls both.
template <typename... Parameters, typename... Values>
void launch_overlapped(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared,
                       cudaStream_t stream, const char* name, const Values&... values) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.dynamicSmemBytes = shared, config.stream = stream;
  config.attrs = &overlap, config.numAttrs = kernels_overlap() ? 1 : 0;
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(values)...), name);
}

}  // namespace ratplus::cuda
