// RowProducts: operation::RowProduct and operation::ProductChain by our own kernels, on Hopper.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "kernels/buffer.h"
#include "kernels/ops.h"

namespace ratplus::cuda {

class TensorMaps;

class RowProducts {
 public:
  RowProducts();
  ~RowProducts();
  RowProducts(const RowProducts&) = delete;
  RowProducts& operator=(const RowProducts&) = delete;

  /// Whether this program has the kernels for the current GPU.
  static bool built();
  /// Whether the tensors are bf16 rows of whole 16 bytes; their number does not matter.
  static bool takes(const operation::RowProduct& call);
  /// The call's arguments are checked; takes() is true, and built() as well.
  void run(const operation::RowProduct& call, cudaStream_t stream);

  /// Whether one kernel makes all products of the chain: two to four of one row each, of whole 64 columns, if the longest row fits
  /// into shared memory beside some weights. Each takes the row that the one before has made, its y or, normalised, its residual,
  /// of 16 KiB at most; all residuals are one tensor. The kernel's blocks wait for each other, so that two such kernels side by
  /// side could wait for ever: a process that shares the GPU by MPS takes no chain, nor does a RowProducts that was made while
  /// another could.
  bool takes(const operation::ProductChain& call) const;
  /// The same, in one kernel: with the bits of run() for each of them.
  void run(const operation::ProductChain& call, cudaStream_t stream);

 private:
  template <typename Shape, bool normed = false>
  void launch(const operation::RowProduct& call, cudaStream_t stream);

  void prepare_chains(int device);
  template <typename Shape>
  void launch_persistent(const operation::RowProduct& call, cudaStream_t stream);

  std::unique_ptr<TensorMaps> maps_;
  int multiprocessors_ = 1;
  /// Rows between the blocks of a chain, and whose turn they are; empty: takes no chain.
  Buffer chain_memory_;
};

}  // namespace ratplus::cuda
