#include <algorithm>

#include "kernels/cuda/checks.h"
#include "kernels/cuda/same_bits.h"

namespace ratplus::cuda {
namespace {

constexpr int threads = 256;

/// Which thread writes does not matter: all write 1.
__global__ void __launch_bounds__(threads)
    compare_kernel(unsigned* differs, const std::uint16_t* a, const std::uint16_t* b, std::int64_t count) {
  const std::int64_t step = std::int64_t{gridDim.x} * threads;
  bool same = true;
  for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += step)
    same &= a[i] == b[i];
  if (!same) atomicMax(differs, 1u);
}

}  // namespace

void compare_bits(unsigned* differs, const void* a, const void* b, std::int64_t bytes, cudaStream_t stream) {
  const std::int64_t count = bytes / 2;
  const auto blocks = static_cast<unsigned>(std::clamp<std::int64_t>(count / threads, 1, 2048));
  compare_kernel<<<blocks, threads, 0, stream>>>(differs, static_cast<const std::uint16_t*>(a),
                                                 static_cast<const std::uint16_t*>(b), count);
  check_launch("compare_bits");
}

}  // namespace ratplus::cuda
