#include "kernels/cuda/versions.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <fmt/core.h>

namespace ratplus::cuda {
namespace {

/// 13000: 13.0.
std::string of_cuda(int number) {
  return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

/// 130101 and 91301: 13.1.1 and 9.13.1.
std::string of_library(std::size_t number) {
  return fmt::format("{}.{}.{}", number / 10000, number % 10000 / 100, number % 100);
}

}  // namespace

std::vector<LibraryVersion> versions() {
  int runtime = 0;
  int driver = 0;  // stays 0 where there is none
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  return {{"CUDA runtime", of_cuda(runtime)},
          {"CUDA of the driver", driver == 0 ? "no driver" : of_cuda(driver)},
          {"cuBLASLt", of_library(cublasLtGetVersion())},
          {"cuDNN", of_library(cudnnGetVersion())}};
}

}  // namespace ratplus::cuda
