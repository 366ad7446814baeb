// CudaOps: the CUDA backend of Ops, on one GPU and one stream. Each file of this folder implements one subject;
// ops.h says what each operation does.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "kernels/cuda/checks.h"
#include "kernels/ops.h"

namespace ratplus::cuda {

class Matmul;           // cuBLASLt (matmul.h)
class RowProducts;      // our own products of inference (row_product.h)
class DenseAttention;   // cuDNN (dense_attention.h)
class CausalAttention;  // our own of dense heads (causal_attention.h)
class Staging;          // pinned host memory for small uploads (staging.h)

class CudaOps final : public Ops {
 public:
  CudaOps(int index, DType compute_type, bool deterministic);
  ~CudaOps() override;
  CudaOps(const CudaOps&) = delete;
  CudaOps& operator=(const CudaOps&) = delete;

  Device device() const override { return {DeviceKind::cuda, index_}; }
  std::string device_name() const override { return name_; }
  DType compute_type() const override { return compute_; }
  void synchronize() override;
  std::unique_ptr<Stopwatch> make_stopwatch() override;
  std::unique_ptr<Recording> make_recording() override;

  std::int64_t scratch_bytes(const OpShapes& shapes) const override;
  bool fuses_norm(std::int64_t rows, std::int64_t width) const override;
  void use_scratch(Tensor scratch) override;

  cudaStream_t stream() const { return stream_; }

 private:
#define RATPLUS_DECLARE(Operation) void compute(const operation::Operation& x) override;
  RATPLUS_OPERATIONS(RATPLUS_DECLARE)
#undef RATPLUS_DECLARE

  bool attended_over_chunks(const operation::AttentionForward& call);
  bool attended_over_chunks(const operation::AttentionBackward& call);
  void backward_of_queries(const operation::AttentionBackward& call, void* memory);
  void add_to_key_sums(const operation::AttentionBackward& call);
  /// `bytes` of scratch, 256-byte aligned; std::logic_error if less was lent.
  void* scratch(std::int64_t bytes, const char* op) const;

  int index_;
  std::string name_;
  DType compute_;
  int multiprocessors_ = 1;
  cudaStream_t stream_ = nullptr;
  Tensor scratch_;
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<RowProducts> row_products_;  ///< empty: cuBLASLt's
  std::unique_ptr<DenseAttention> dense_attention_;
  std::unique_ptr<CausalAttention> causal_attention_;  ///< empty: by the kernels of patterns
  std::unique_ptr<Staging> staging_;
};

// Scratch of the operations that need some, in bytes.
std::int64_t pattern_attention_scratch(const OpShapes& shapes);
std::int64_t chunk_attention_scratch(
    const OpShapes& shapes);  ///< of the forward; the backward stays within the line above
std::int64_t recurrence_scratch(const OpShapes& shapes);
std::int64_t column_sums_scratch(std::int64_t columns);
std::int64_t norm_scratch(std::int64_t width);
std::int64_t embedding_scratch(std::int64_t rows);
std::int64_t reduction_scratch();

}  // namespace ratplus::cuda
