// Attention: layers whose heads are all dense by cuDNN where it has a kernel, all others by our own kernels.
#include "kernels/cuda/accumulate.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dense_attention.h"
#include "kernels/cuda/pattern_attention.h"

namespace ratplus::cuda {
namespace {

/// Whether cuDNN is asked: a whole sequence of dense heads in bf16.
bool for_cudnn(DType compute, HeadPatterns patterns, std::int64_t first_query) {
  return compute == DType::bf16 && first_query == 0 && operation::all_dense(patterns);
}

}  // namespace

void CudaOps::compute(const operation::AttentionForward& call) {
  if (call.q.numel() == 0) return;
  if (for_cudnn(compute_, call.patterns, call.first_query)) {
    const std::int64_t workspace = dense_attention_->forward_workspace(call.out, call.q, call.k, call.v);
    if (workspace >= 0) {
      return dense_attention_->forward(call.out, call.lse, call.q, call.k, call.v,
                                       scratch(workspace, call.name));
    }
  }
  pattern_attention_forward(stream_, call);
}

void CudaOps::compute(const operation::AttentionBackward& call) {
  if (call.q.numel() == 0) return;
  backward_of_queries(call);
  if (!call.key_sums) return;
  accumulate(call.key_sums.select(2, 0), call.dk, stream_);
  accumulate(call.key_sums.select(2, 1), call.dv, stream_);
}

/// dk and dv of these queries alone.
void CudaOps::backward_of_queries(const operation::AttentionBackward& call) {
  if (for_cudnn(compute_, call.patterns, call.first_query)) {
    const std::int64_t workspace = dense_attention_->backward_workspace(call.dq, call.dk, call.dv, call.dout,
                                                                        call.out, call.q, call.k, call.v);
    if (workspace >= 0) {
      return dense_attention_->backward(call.dq, call.dk, call.dv, call.dout, call.out, call.lse, call.q,
                                        call.k, call.v, scratch(workspace, call.name));
    }
  }
  if (call.first_query > 0) {  // keys that none of these queries attends to
    compute(operation::Fill{call.dk, 0});
    compute(operation::Fill{call.dv, 0});
  }
  const OpShapes shapes{call.k.size(0), call.k.size(1), call.k.size(2), call.k.size(3)};
  pattern_attention_backward(stream_, call, scratch(pattern_attention_scratch(shapes), call.name));
}

}  // namespace ratplus::cuda
