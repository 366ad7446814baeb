// What every operation of every backend checks before it touches memory. Nothing is formatted, so nothing
// allocated, unless a check fails.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "base/error.h"
#include "kernels/tensor.h"

namespace ratplus {

using CheckedShape = std::initializer_list<std::int64_t>;

/// Memory of this kind of device, type and shape, with a contiguous last dimension.
inline void check_tensor(const Tensor& tensor, DeviceKind kind, DType dtype, CheckedShape shape,
                         const char* op, const char* name) {
  const bool same_shape =
      std::equal(shape.begin(), shape.end(), tensor.shape().begin(), tensor.shape().end());
  const bool unit_stride =
      tensor.rank() > 0 && (tensor.size(tensor.rank() - 1) <= 1 || tensor.stride(tensor.rank() - 1) == 1);
  if (same_shape && unit_stride && tensor.dtype() == dtype && tensor.device().kind == kind &&
      !(tensor.empty() && tensor.numel() > 0)) {
    return;
  }
  throw std::logic_error(fmt::format("{}: {} is {}{} on {}, not {} on {}", op, name,
                                     unit_stride ? "" : "strided ", tensor.describe(),
                                     to_string(tensor.device()), Tensor(nullptr, dtype, shape).describe(),
                                     kind == DeviceKind::cpu ? "cpu" : "cuda"));
}

/// The same, and of rank `rank`: for the tensor that gives an operation its sizes.
inline void check_rank(const Tensor& tensor, DeviceKind kind, DType dtype, int rank, const char* op,
                       const char* name) {
  require(tensor.rank() == rank, "{}: {} has {} dimensions, not {}", op, name, tensor.rank(), rank);
  const auto n = [&](int dim) { return tensor.size(dim); };
  switch (rank) {
    case 1:
      return check_tensor(tensor, kind, dtype, {n(0)}, op, name);
    case 2:
      return check_tensor(tensor, kind, dtype, {n(0), n(1)}, op, name);
    case 4:
      return check_tensor(tensor, kind, dtype, {n(0), n(1), n(2), n(3)}, op, name);
    default:
      return check_tensor(tensor, kind, dtype, {n(0), n(1), n(2), n(3), n(4)}, op, name);
  }
}

inline void check_contiguous(const Tensor& tensor, const char* op, const char* name) {
  require(tensor.contiguous(), "{}: {} is strided, and must be contiguous", op, name);
}

}  // namespace ratplus
