// Attention: layers whose heads are all dense by cuDNN where it has a kernel, all others by our own kernels.
#include <algorithm>

#include "kernels/attention_shape.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dense_attention.h"
#include "kernels/cuda/pattern_attention.h"

namespace ratplus::cuda {
namespace {

bool all_dense(HeadPatterns patterns) {
  return std::ranges::all_of(patterns, &Pattern::dense);
}

}  // namespace

void CudaOps::attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, HeadPatterns patterns) {
  const char* op = "attention_forward";
  const AttentionShape sizes(q, compute_, patterns, op);
  require(sizes.kind == DeviceKind::cuda, "{}: q is on {}, not on a GPU", op, to_string(q.device()));
  sizes.check_forward(out, lse, k, v, op);
  if (q.numel() == 0) return;
  if (compute_ == DType::bf16 && all_dense(patterns)) {
    const std::int64_t workspace = dense_attention_->forward_workspace(out, q, k, v);
    if (workspace >= 0) return dense_attention_->forward(out, lse, q, k, v, scratch(workspace, op));
  }
  pattern_attention_forward(stream_, out, lse, q, k, v, patterns);
}

void CudaOps::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse,
                                 Tensor q, Tensor k, Tensor v, HeadPatterns patterns) {
  const char* op = "attention_backward";
  const AttentionShape sizes(q, compute_, patterns, op);
  require(sizes.kind == DeviceKind::cuda, "{}: q is on {}, not on a GPU", op, to_string(q.device()));
  sizes.check_forward(out, lse, k, v, op);
  sizes.check_gradients(dq, dk, dv, dout, op);
  if (q.numel() == 0) return;
  if (compute_ == DType::bf16 && all_dense(patterns)) {
    const std::int64_t workspace = dense_attention_->backward_workspace(dq, dk, dv, dout, out, q, k, v);
    if (workspace >= 0) {
      return dense_attention_->backward(dq, dk, dv, dout, out, lse, q, k, v, scratch(workspace, op));
    }
  }
  const OpShapes shapes{sizes.batch, sizes.tokens, sizes.heads, sizes.head_dim};
  pattern_attention_backward(stream_, dq, dk, dv, dout, out, lse, q, k, v, patterns,
                             scratch(pattern_attention_scratch(shapes), op));
}

}  // namespace ratplus::cuda
