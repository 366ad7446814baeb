// CudaOps: the CUDA backend of Ops, on one GPU and one stream. Each file of this folder implements one subject;
// ops.h says what each operation does.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "kernels/cuda/checks.h"
#include "kernels/ops.h"

namespace ratplus::cuda {

class Matmul;          // cuBLASLt (matmul.h)
class DenseAttention;  // cuDNN (dense_attention.h)
class Staging;         // pinned host memory for small uploads (staging.h)

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

  std::int64_t scratch_bytes(const OpShapes& shapes) const override;
  void use_scratch(Tensor scratch) override;

  void copy(Tensor dst, Tensor src) override;
  void fill(Tensor x, float value) override;
  void add(Tensor y, Tensor x) override;
  void upload(Tensor dst, const void* host) override;
  void download(void* host, Tensor src) override;

  void matmul(Tensor c, Tensor a, Tensor b, MatmulOptions options) override;

  void embedding_forward(Tensor x, Tensor tokens, Tensor table) override;
  void embedding_backward(Tensor dtable, Tensor dx, Tensor tokens) override;

  void residual_rms_norm_forward(Tensor y, Tensor u, Tensor rstd, Tensor x, Tensor delta, Tensor weight,
                                 double eps) override;
  void residual_rms_norm_backward(Tensor dx, Tensor dlayer, Tensor dweight, Tensor du, Tensor dy, Tensor y,
                                  Tensor rstd, Tensor weight) override;

  void rope_table(Tensor table, double base) override;
  void recurrence_rope_forward(Tensor q_rot, Tensor k_rot, Tensor v_rec, Tensor projection,
                               Tensor rope) override;
  void recurrence_rope_backward(Tensor dprojection, Tensor dq_rot, Tensor dk_rot, Tensor dv_rec,
                                Tensor projection, Tensor k_rot, Tensor v_rec, Tensor rope) override;
  void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                         HeadPatterns patterns) override;
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                          Tensor k, Tensor v, HeadPatterns patterns) override;
  void output_gate_forward(Tensor z, Tensor a, Tensor o) override;
  void output_gate_backward(Tensor da, Tensor dgate, Tensor dz, Tensor a, Tensor o) override;

  void gelu_forward(Tensor z, Tensor h) override;
  void gelu_backward(Tensor dh, Tensor dz, Tensor h) override;

  void cross_entropy(Tensor losses, Tensor logits, Tensor labels, double scale, bool want_gradient) override;
  void hits(Tensor hits, Tensor logits, Tensor labels) override;

  void add_sum(Tensor total, Tensor x) override;
  void add_sum_of_squares(Tensor total, Tensor x) override;
  void adamw(Tensor master, Tensor m, Tensor v, Tensor weights, Tensor gradient,
             const AdamW& update) override;

  cudaStream_t stream() const { return stream_; }

 private:
  /// `bytes` of scratch, 256-byte aligned; std::logic_error if less was lent.
  void* scratch(std::int64_t bytes, const char* op) const;

  int index_;
  std::string name_;
  DType compute_;
  int multiprocessors_ = 1;
  cudaStream_t stream_ = nullptr;
  Tensor scratch_;
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<DenseAttention> dense_attention_;
  std::unique_ptr<Staging> staging_;
};

// Scratch of the operations that need some, in bytes.
std::int64_t pattern_attention_scratch(const OpShapes& shapes);
std::int64_t recurrence_scratch(const OpShapes& shapes);
std::int64_t norm_scratch(std::int64_t width);
std::int64_t embedding_scratch(std::int64_t rows);
std::int64_t reduction_scratch();

}  // namespace ratplus::cuda
