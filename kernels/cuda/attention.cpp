// Attention: layers whose heads are all dense by cuDNN where it has a kernel, all others by our own kernels.
#include "kernels/cuda/accumulate.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dense_attention.h"
#include "kernels/cuda/pattern_attention.h"
#include "kernels/cuda/sum_heads.h"

namespace ratplus::cuda {
namespace {

template <typename Call>
bool shares_keys(const Call& call) {
  return call.k.size(2) != call.out.size(2);
}

/// Whether cuDNN is asked: a whole sequence of dense heads in bf16, each with queries of its own. Sums that are handed on are
/// of each head, which it does not give where heads share keys; and how it adds up depends on the whole sequence's length.
template <typename Call>
bool for_cudnn(DType compute, const Call& call) {
  bool takes = call.q.size(2) == call.out.size(2);
  if constexpr (requires { call.in_pieces; }) takes = takes && !call.in_pieces;
  if constexpr (requires { call.key_sums; }) takes = takes && (call.key_sums.empty() || !shares_keys(call));
  return takes && compute == DType::bf16 && call.first_query == 0 && operation::all_dense(call.patterns);
}

}  // namespace

void CudaOps::compute(const operation::AttentionForward& call) {
  if (call.q.numel() == 0) return;
  if (for_cudnn(compute_, call)) {
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
  if (for_cudnn(compute_, call)) {
    const std::int64_t workspace = dense_attention_->backward_workspace(call.dq, call.dk, call.dv, call.dout,
                                                                        call.out, call.q, call.k, call.v);
    if (workspace >= 0) {
      dense_attention_->backward(call.dq, call.dk, call.dv, call.dout, call.out, call.lse, call.q, call.k,
                                 call.v, scratch(workspace, call.name));
      return add_to_key_sums(call);
    }
  }
  const OpShapes shapes{call.out.size(0), call.k.size(1), call.out.size(2), call.out.size(3), call.k.size(2)};
  auto* memory = static_cast<char*>(scratch(pattern_attention_scratch(shapes), call.name));
  if (!shares_keys(call)) {
    backward_of_queries(call, memory);
    return add_to_key_sums(call);
  }
  // The gradients of each head by itself, then their sums in the order of the heads.
  auto of_heads = call;
  const CheckedShape shape{shapes.batch, shapes.tokens, shapes.heads, shapes.head_dim};
  char* after =
      memory + pattern_attention_scratch({shapes.batch, shapes.tokens, shapes.heads, shapes.head_dim});
  of_heads.dk = Tensor(after, compute_, shape, device());
  of_heads.dv = Tensor(after + of_heads.dk.bytes(), compute_, shape, device());
  backward_of_queries(of_heads, memory);
  add_to_key_sums(of_heads);
  sum_neighbouring_heads(call.dk, of_heads.dk, stream_);
  sum_neighbouring_heads(call.dv, of_heads.dv, stream_);
}

void CudaOps::add_to_key_sums(const operation::AttentionBackward& call) {
  if (!call.key_sums) return;
  accumulate(call.key_sums.select(2, 0), call.dk, stream_);
  accumulate(call.key_sums.select(2, 1), call.dv, stream_);
}

/// dk and dv of these queries alone, of as many heads as `out` has, by our own kernels.
void CudaOps::backward_of_queries(const operation::AttentionBackward& call, void* memory) {
  if (call.first_query > 0) {  // keys that none of these queries attends to
    compute(operation::Fill{call.dk, 0});
    compute(operation::Fill{call.dv, 0});
  }
  pattern_attention_backward(stream_, call, memory);
}

}  // namespace ratplus::cuda
