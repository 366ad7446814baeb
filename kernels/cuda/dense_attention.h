// DenseAttention: causal attention over all keys by cuDNN's fused kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "kernels/tensor.h"

namespace ratplus::cuda {

/// Dense causal attention in bf16 of tensors [B, T, H, P], where k and v may have fewer heads and more tokens (query t attends to the
/// keys 0 .. t), and its gradient, by an algorithm that gives the same bits each time if asked to. Plans are made at the first use of
/// a shape and kept.
class DenseAttention {
 public:
  DenseAttention(cudaStream_t stream, bool deterministic);
  ~DenseAttention();
  DenseAttention(const DenseAttention&) = delete;
  DenseAttention& operator=(const DenseAttention&) = delete;

  /// Workspace that forward or backward needs, or -1 where cuDNN has no kernel for tensors like these (their shapes,
  /// strides and alignment matter, their contents do not).
  std::int64_t forward_workspace(Tensor out, Tensor q, Tensor k, Tensor v);
  std::int64_t backward_workspace(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor q,
                                  Tensor k, Tensor v);
  /// Ops::attention_forward and attention_backward for D = 1; workspace as said by the functions above.
  void forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, void* workspace);
  void backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                Tensor v, void* workspace);

 private:
  struct Plan;
  /// The shape, the number and the heads of keys, and the strides of up to eight tensors.
  using Key = std::array<std::int64_t, 6 + 8 * 3>;

  Plan& forward_plan(const Tensor& out, const Tensor& q, const Tensor& k, const Tensor& v);
  Plan& backward_plan(const std::array<Tensor, 8>& tensors);

  struct Handle;
  std::unique_ptr<Handle> handle_;
  bool deterministic_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace ratplus::cuda
