#include "kernels/cuda/tensor_maps.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "base/error.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/row_stride.h"

namespace ratplus::cuda {
namespace {

constexpr int columns = 64;

PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                                &result),
               "asking the driver for its tensor maps");
    if (function == nullptr) fail("the GPU's driver has no tensor maps; it is older than CUDA 12");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return found;
}

}  // namespace

CUtensorMap TensorMaps::of(const Tensor& x, int box) {
  return made({reinterpret_cast<std::int64_t>(x.raw()), box, 1, x.size(1), x.size(0), row_stride(x)}, x);
}

CUtensorMap TensorMaps::of_slabs(const Tensor& x, int box, int slabs) {
  // Slabs overlap rows: the third stride is less than the second, which drivers take.
  return made({reinterpret_cast<std::int64_t>(x.raw()), box, slabs, columns, x.size(0), row_stride(x),
               x.size(1) / columns, columns},
              x);
}

CUtensorMap TensorMaps::of_heads(const Tensor& x, int box) {
  // The stride of a dimension of one element is never used, and need not be a whole one.
  const auto stride = [&](std::int64_t dimension) {
    return x.size(dimension) == 1 ? x.size(3) : x.stride(dimension);
  };
  return made({reinterpret_cast<std::int64_t>(x.raw()), box, 1, x.size(3), x.size(1), stride(1), x.size(2),
               stride(2), x.size(0), stride(0)},
              x);
}

/// key: address, rows of a box, its slabs, columns, then the size and stride of each further dimension, from the box's rows on; 0
/// behind the last.
CUtensorMap TensorMaps::made(const Key& key, const Tensor& x) {
  const auto found = maps_.find(key);
  if (found != maps_.end()) return found->second;
  if (maps_.size() >= most) maps_.clear();
  constexpr int most_dimensions = 4;
  cuuint64_t sizes[most_dimensions] = {static_cast<cuuint64_t>(key[3])}, strides[most_dimensions - 1] = {};
  cuuint32_t boxes[most_dimensions] = {columns, static_cast<cuuint32_t>(key[1]),
                                       static_cast<cuuint32_t>(key[2]), 1};
  const cuuint32_t steps[most_dimensions] = {1, 1, 1, 1};
  cuuint32_t dimensions = 1;
  for (std::size_t i = 4; i < key.size() && key[i] > 0; i += 2) {
    sizes[dimensions] = static_cast<cuuint64_t>(key[i]);
    strides[dimensions - 1] = static_cast<cuuint64_t>(key[i + 1]) * 2;
    ++dimensions;
  }
  CUtensorMap map{};
  const CUresult status =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, dimensions, x.raw(), sizes, strides, boxes, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  require(status == CUDA_SUCCESS, "a tensor map of {}: error {}", x.describe(), static_cast<int>(status));
  return maps_.emplace(key, map).first->second;
}

}  // namespace ratplus::cuda
