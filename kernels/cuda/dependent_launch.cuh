// Programmatic dependent launch (from sm_90 on): a kernel begins before the one in front of it in the stream has ended.
#pragma once

namespace ratplus::cuda {

/// Waits until the results of all kernels in front are there, and lets the next kernel begin. A kernel calls it before it
/// reads or writes global memory; without the launch attribute it has no effect.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

}  // namespace ratplus::cuda
