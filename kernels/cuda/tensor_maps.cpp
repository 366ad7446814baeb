#include "kernels/cuda/tensor_maps.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include "base/error.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/row_stride.h"

namespace ratplus::cuda {
namespace {

constexpr cuuint32_t columns = 64;

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
  const Key key{reinterpret_cast<std::int64_t>(x.raw()), x.size(0), x.size(1), row_stride(x), box};
  const auto found = maps_.find(key);
  if (found != maps_.end()) return found->second;
  if (maps_.size() >= most) maps_.clear();
  CUtensorMap& map = maps_[key];
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(x.size(1)), static_cast<cuuint64_t>(x.size(0))};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(row_stride(x)) * 2};
  const cuuint32_t boxes[2] = {columns, static_cast<cuuint32_t>(box)}, steps[2] = {1, 1};
  const CUresult status = encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, x.raw(), sizes, strides, boxes,
                                    steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  require(status == CUDA_SUCCESS, "a tensor map of {}: error {}", x.describe(), static_cast<int>(status));
  return map;
}

}  // namespace ratplus::cuda
