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
  /// Boxes of `slabs` times 64 columns of `box` rows of a bf16 matrix x, 64 columns of all rows before the next 64; x has a
  /// multiple of 64 columns.
  CUtensorMap of_slabs(const Tensor& x, int box, int slabs);
  /// Boxes of `box` tokens and 64 channels of one head of a bf16 tensor x [B, T, H, P], laid out the same way.
  CUtensorMap of_heads(const Tensor& x, int box);

 private:
  using Key = std::array<std::int64_t, 10>;
  CUtensorMap made(const Key& key, const Tensor& x);
  static constexpr std::size_t most = 1 << 16;
  std::map<Key, CUtensorMap> maps_;
};

}  // namespace ratplus::cuda
