#include "kernels/cuda/device_memory.h"

#include "kernels/cuda/checks.h"

namespace ratplus::cuda {

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fail("CUDA: {} failed: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status));
}

void* allocate(Device device, std::int64_t bytes) {
  check_cuda(cudaSetDevice(device.index), "choosing the GPU");
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // an answer, not a fault
    return nullptr;
  }
  check_cuda(status, "allocating memory");
  check_cuda(cudaMemset(data, 0, static_cast<std::size_t>(bytes)), "clearing memory");
  check_cuda(cudaDeviceSynchronize(), "clearing memory");  // other streams do not wait for this one
  return data;
}

void release(Device device, void* data) noexcept {
  cudaSetDevice(device.index);
  cudaFree(data);
}

std::int64_t available_memory(Device device) {
  check_cuda(cudaSetDevice(device.index), "choosing the GPU");
  std::size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "asking for the free memory");
  return static_cast<std::int64_t>(free);
}

bool lock_pages(Device device, void* host, std::int64_t bytes) {
  check_cuda(cudaSetDevice(device.index), "choosing the GPU");
  if (cudaHostRegister(host, static_cast<std::size_t>(bytes), cudaHostRegisterDefault) == cudaSuccess) {
    return true;
  }
  cudaGetLastError();  // an answer, not a fault
  return false;
}

void unlock_pages(Device device, void* host) noexcept {
  cudaSetDevice(device.index);
  cudaHostUnregister(host);
}

}  // namespace ratplus::cuda
