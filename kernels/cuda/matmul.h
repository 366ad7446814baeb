// Matmul: matrix products by cuBLASLt.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>

#include "kernels/ops.h"

namespace ratplus::cuda {

/// Products of Ops::matmul. The algorithm of each shape is the first that cuBLASLt's heuristic names, kept from
/// its first use on: a function of the shape, the library and the chip alone, so that two runs give the same bits.
/// (Measured on an H100 with the shapes of 1b: taking the fastest of eight candidates instead gains up to 10 % for a
/// product by itself, and nothing in a training step, where the chip's power is what limits its rate.)
class Matmul {
 public:
  /// What products may use; Hopper's split-K kernels want 32 MiB.
  static constexpr std::int64_t workspace_bytes = std::int64_t{32} << 20;

  Matmul();
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  /// c [M, N] = a b, as Ops::matmul; the tensors are checked. workspace: workspace_bytes, 256-byte aligned.
  void run(Tensor c, Tensor a, Tensor b, MatmulOptions options, void* workspace, cudaStream_t stream);
  /// c [M, N] = a [M, K] b [N, K]^T by one algorithm for all M, which does not cut K: a row of c depends on its row of a
  /// alone.
  void run_rows_alone(Tensor c, Tensor a, Tensor b, void* workspace, cudaStream_t stream);

 private:
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };
  /// What decides a plan: sizes, row strides, types, transposes, alignments.
  using Key = std::array<std::int64_t, 12>;

  const Plan& plan(const Key& key);
  /// of_rows: the algorithm is that of this number of rows, without a cut of K.
  Plan make_plan(const Key& key, std::int64_t of_rows);
  void run(const Plan& plan, Tensor c, Tensor a, Tensor b, bool accumulate, void* workspace,
           cudaStream_t stream);

  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Plan> plans_;
  std::map<Key, Plan> rows_alone_;
};

}  // namespace ratplus::cuda
