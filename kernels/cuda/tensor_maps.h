// TensorMaps: what TMA must know of a matrix, made once and kept.
#pragma once

#include <cuda.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "kernels/tensor.h"

namespace ratplus::cuda {

/// Distance of the rows of a matrix, in elements; of one row, its length.
inline std::int64_t row_stride(const Tensor& x) {
  return x.size(0) == 1 ? x.size(1) : x.stride(0);
}

class TensorMaps {
 public:
  /// Boxes of `box` rows and 64 columns of a bf16 matrix x, 128 bytes a row, swizzled; elements behind its borders are
  /// zero.
  CUtensorMap of(const Tensor& x, int box);

 private:
  using Key = std::array<std::int64_t, 5>;
  static constexpr std::size_t most = 1 << 16;
  std::map<Key, CUtensorMap> maps_;
};

}  // namespace ratplus::cuda
