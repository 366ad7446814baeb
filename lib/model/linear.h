// Linear: y = x w^T, forward and backward; the only caller of matrix products in the model. Whatever concerns products
// (their types, scales, transposed copies) belongs here.
#pragma once

#include "kernels/ops.h"

namespace ratplus::model::linear {

/// y [N, out] = x [N, in] w^T, w [out, in]; x and w in C, y in C or f32.
inline void forward(Ops& ops, const Tensor& y, const Tensor& x, const Tensor& w) {
  ops.matmul(y, x, w, {.transpose_b = true});
}

/// The same of a packed w (Ops::pack_weight), where a row's bits do not depend on the rows beside it: inference.
inline void rows_alone(Ops& ops, const Tensor& y, const Tensor& x, const Tensor& w) {
  ops.row_product(y, x, w);
}
/// GELU of it.
inline void rows_alone_gelu(Ops& ops, const Tensor& y, const Tensor& x, const Tensor& w) {
  ops.row_product(y, x, w, true);
}

/// The norm of a stream x before it, where Ops::fuses_norm.
inline operation::RowProduct of_norm(const Tensor& y, const Tensor& x, const Tensor& norm_weight, double eps,
                                     const Tensor& w, bool gelu = false) {
  return {.y = y, .x = x, .w = w, .gelu = gelu, .norm_weight = norm_weight, .eps = eps};
}
/// Into a stream, where Ops::fuses_norm.
inline operation::RowProduct onto(const Tensor& residual, const Tensor& y, const Tensor& x, const Tensor& w) {
  return {.y = y, .x = x, .w = w, .residual = residual};
}

/// dx [N, in] = dy [N, out] w.
inline void input_gradient(Ops& ops, const Tensor& dx, const Tensor& dy, const Tensor& w) {
  ops.matmul(dx, dy, w, {});
}

/// dw [out, in] f32 += dy^T x; instead of what is there if it is fresh.
inline void weight_gradient(Ops& ops, const Tensor& dw, const Tensor& dy, const Tensor& x, bool fresh) {
  ops.matmul(dw, dy, x, {.transpose_a = true, .accumulate = !fresh});
}

}  // namespace ratplus::model::linear
