// Attention under (D, 0, 0) of whole sequences as dense attention over the keys that chunks of D tokens end with.
//
// Query t = c D + o attends to the last keys of the chunks before c, and to its own. So the queries at offset o of their
// chunks, c = 1 .. C - 1, are one head of dense causal attention whose row c - 1 attends to the chunks' keys 0 .. c - 1,
// and the D heads of one head's offsets share these keys (grouped-query attention, Ainslie et al., 2023): views of the
// call's tensors, without copies, whose output, log sum of exponentials and gradients a library's dense kernels give. The
// own key is merged into them here:
//     lse = log(exp l + exp e),   out = (1 - w) out_l + w v,   w = exp(e - lse),   e = q . k / sqrt(P),
// where out_l and l are those over the chunks' keys. A dense backward that is given the merged out and lse gives the merged
// weights' gradients; those of the own key are added.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace ratplus::cuda {

/// Views of tensors [B, T, H, P] for some sequences and one head.
class ChunkViews {
 public:
  ChunkViews(std::int64_t chunk, std::int64_t first_sequence, std::int64_t sequences, std::int64_t head)
      : chunk_(chunk), first_(first_sequence), sequences_(sequences), head_(head) {}

  /// [sequences, C - 1, D, P]: the rows of the chunks after the first. Heads of queries may be fewer: head h mod their number.
  Tensor queries(const Tensor& x) const {
    const Tensor rows = chunks(x, head_ % x.size(2));
    return rows.slice(1, 1, rows.size(1));
  }
  /// [sequences, C, 1, P]: the last row of every chunk.
  Tensor keys(const Tensor& x) const { return chunks(x, head_).slice(2, chunk_ - 1, chunk_); }
  /// f32 [sequences, D, C - 1] of sums [H, B, D, C - 1].
  Tensor sums(const Tensor& all) const { return all.select(0, head_).slice(0, first_, first_ + sequences_); }

 private:
  Tensor chunks(const Tensor& x, std::int64_t head) const {
    return x.slice(0, first_, first_ + sequences_).select(2, head).split(1, chunk_);
  }

  std::int64_t chunk_, first_, sequences_, head_;
};

/// sums f32 [H, B, D, C - 1]: l of the rows of ChunkViews, with `out` holding out_l there: merges the own keys into out and
/// writes lse.
void merge_own_keys(const operation::AttentionForward& call, const Tensor& sums, cudaStream_t stream);
/// The other way: sums = the lse of the call's rows.
void gather_chunk_sums(const Tensor& sums, const operation::AttentionBackward& call, cudaStream_t stream);
/// Adds the own keys' gradients to dq, dk and dv, which hold the chunks' keys' where there are some: dq from the second chunk
/// on, dk and dv in the last rows of all chunks but the last. All else is written.
void add_own_keys(const operation::AttentionBackward& call, std::int64_t chunk, cudaStream_t stream);

}  // namespace ratplus::cuda
