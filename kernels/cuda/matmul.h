// Matmul: matrix products by cuBLASLt.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/ops.h"

namespace ratplus::cuda {

/// Products of Ops::matmul. The algorithm of a shape is chosen at its first use and kept. cuBLASLt's heuristic names
/// several; large products try them on their own factors and take the fastest of those that give the same bits as the
/// first (they differ in how they cut the result, not in how they add). So the choice, which depends on a
/// measurement, does not show in the result: two runs give the same bits.
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

 private:
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    std::vector<cublasLtMatmulAlgo_t> candidates;  ///< the heuristic's best first
    std::size_t chosen = 0;
    bool tuned = false;
  };
  /// What decides a plan: sizes, row strides, types, transposes, accumulation, alignments.
  using Key = std::array<std::int64_t, 12>;

  Plan& plan(const Key& key);
  void multiply(const Plan& plan, std::size_t candidate, const Tensor& a, const Tensor& b, void* c,
                bool accumulate, void* workspace, cudaStream_t stream) const;
  void tune(Plan& plan, const Tensor& c, const Tensor& a, const Tensor& b, bool accumulate, void* workspace,
            cudaStream_t stream) const;

  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace ratplus::cuda
