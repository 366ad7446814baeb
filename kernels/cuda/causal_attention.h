// CausalAttention: attention to all keys before each query by our own kernel, on Hopper, with bits that do not depend on where a
// sequence is cut at multiples of 128 tokens.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "kernels/buffer.h"
#include "kernels/ops.h"

namespace ratplus::cuda {

class TensorMaps;
struct HeadGroup;

class CausalAttention {
 public:
  CausalAttention();
  ~CausalAttention();
  CausalAttention(const CausalAttention&) = delete;
  CausalAttention& operator=(const CausalAttention&) = delete;

  /// Whether this program has the kernel for the current GPU.
  static bool built();
  /// Whether all tensors are bf16 rows of whole 16 bytes, in heads of 64 or 128 channels.
  static bool takes(const operation::AttentionForward& call);
  /// The heads of a dense group. The call's arguments are checked; takes() is true, and built() as well.
  void run(const operation::AttentionForward& call, const HeadGroup& group, cudaStream_t stream);

 private:
  template <int P>
  void launch(const operation::AttentionForward& call, const HeadGroup& group, cudaStream_t stream);

  std::unique_ptr<TensorMaps> maps_;
  int multiprocessors_ = 1;
  Buffer counters_;  ///< queries given out, blocks that have ended; zero between kernels
};

}  // namespace ratplus::cuda
