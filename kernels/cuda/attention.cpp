// Attention: layers whose heads are all dense, and (D, 0, 0) over many chunks, by cuDNN where it has a kernel; all others by our
// own kernels.
#include "kernels/cuda/accumulate.h"
#include "kernels/cuda/causal_attention.h"
#include "kernels/cuda/chunk_attention.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/dense_attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul.h"
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

/// Sums of attention over chunks (chunk_attention.h) at the beginning of `memory`, for a call's `out` and lse.
Tensor chunk_sums(void* memory, const Tensor& out, std::int64_t chunk) {
  const std::int64_t rows = out.size(1) / chunk - 1;
  return Tensor(memory, DType::f32, {out.size(2), out.size(0), chunk, rows}, out.device());
}
/// Their bytes, so that what comes after is aligned.
std::int64_t chunk_sums_bytes(const Tensor& out) {
  return blocks_of(out.size(0) * out.size(1) * out.size(2) * size_of(DType::f32), 256) * 256;
}

/// Sequences of one launch of attention over chunks: all, or one where the workspace of all would be more than `most` bytes; 0
/// where that is more, too, or there is no kernel. workspace(ChunkViews): its bytes.
template <typename Workspace>
std::int64_t sequences_a_launch(std::int64_t batch, std::int64_t chunk, std::int64_t most,
                                Workspace&& workspace) {
  for (const std::int64_t sequences : {batch, std::int64_t{1}}) {
    const std::int64_t bytes = workspace(ChunkViews(chunk, 0, sequences, 0));
    if (bytes >= 0 && bytes <= most) return sequences;
  }
  return 0;
}

/// Calls launch(ChunkViews) for each head, `sequences` sequences at a time.
template <typename Launch>
void for_each_launch(const Tensor& out, std::int64_t chunk, std::int64_t sequences, Launch&& launch) {
  for (std::int64_t h = 0; h < out.size(2); ++h) {
    for (std::int64_t b = 0; b < out.size(0); b += sequences) launch(ChunkViews(chunk, b, sequences, h));
  }
}

}  // namespace

std::int64_t chunk_attention_scratch(const OpShapes& shapes) {
  return shapes.batch * shapes.tokens * shapes.heads * size_of(DType::f32) + Matmul::workspace_bytes;
}

/// Whether the call was taken as dense attention over chunks.
bool CudaOps::attended_over_chunks(const operation::AttentionForward& call) {
  const std::int64_t chunk = call.dense_chunk(compute_);
  if (chunk == 0) return false;
  const std::int64_t batch = call.out.size(0), of_sums = chunk_sums_bytes(call.out);
  const std::int64_t sequences =
      sequences_a_launch(batch, chunk, Matmul::workspace_bytes - 256, [&](const ChunkViews& views) {
        return dense_attention_->forward_workspace(views.queries(call.out), views.queries(call.q),
                                                   views.keys(call.k), views.keys(call.v));
      });
  if (sequences == 0) return false;
  const OpShapes shapes{batch, call.out.size(1), call.out.size(2), call.out.size(3)};
  auto* memory = static_cast<char*>(scratch(chunk_attention_scratch(shapes), call.name));
  const Tensor sums = chunk_sums(memory, call.out, chunk);
  for_each_launch(call.out, chunk, sequences, [&](const ChunkViews& views) {
    dense_attention_->forward(views.queries(call.out), views.sums(sums), views.queries(call.q),
                              views.keys(call.k), views.keys(call.v), memory + of_sums);
  });
  merge_own_keys(call, sums, stream_);
  return true;
}

bool CudaOps::attended_over_chunks(const operation::AttentionBackward& call) {
  const std::int64_t chunk = call.dense_chunk(compute_);
  if (chunk == 0) return false;
  const OpShapes shapes{call.out.size(0), call.out.size(1), call.out.size(2), call.out.size(3)};
  const std::int64_t lent = pattern_attention_scratch(shapes), of_sums = chunk_sums_bytes(call.out);
  const std::int64_t sequences =
      sequences_a_launch(shapes.batch, chunk, lent - of_sums, [&](const ChunkViews& views) {
        return dense_attention_->backward_workspace(
            views.queries(call.dq), views.keys(call.dk), views.keys(call.dv), views.queries(call.dout),
            views.queries(call.out), views.queries(call.q), views.keys(call.k), views.keys(call.v));
      });
  if (sequences == 0) return false;
  auto* memory = static_cast<char*>(scratch(lent, call.name));
  const Tensor sums = chunk_sums(memory, call.out, chunk);
  gather_chunk_sums(sums, call, stream_);
  for_each_launch(call.out, chunk, sequences, [&](const ChunkViews& views) {
    dense_attention_->backward(views.queries(call.dq), views.keys(call.dk), views.keys(call.dv),
                               views.queries(call.dout), views.queries(call.out), views.sums(sums),
                               views.queries(call.q), views.keys(call.k), views.keys(call.v),
                               memory + of_sums);
  });
  add_own_keys(call, chunk, stream_);
  return true;
}

void CudaOps::compute(const operation::AttentionForward& call) {
  if (call.q.numel() == 0 || attended_over_chunks(call)) return;
  if (for_cudnn(compute_, call)) {
    const std::int64_t workspace = dense_attention_->forward_workspace(call.out, call.q, call.k, call.v);
    if (workspace >= 0) {
      return dense_attention_->forward(call.out, call.lse, call.q, call.k, call.v,
                                       scratch(workspace, call.name));
    }
  }
  pattern_attention_forward(stream_, call, causal_attention_.get());
}

void CudaOps::compute(const operation::AttentionBackward& call) {
  if (call.q.numel() == 0 || attended_over_chunks(call)) return;
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
