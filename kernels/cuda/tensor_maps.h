// TensorMaps: descriptions of matrices for TMA, made once and kept.
#pragma once

#include <cuda.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>

#include "kernels/tensor.h"

namespace ratplus::cuda {

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
