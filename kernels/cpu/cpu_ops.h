// CpuOps: the CPU backend of Ops. Each file of this folder implements one subject; ops.h says what each does.
#pragma once

#include "kernels/ops.h"

namespace ratplus::cpu {

class CpuOps final : public Ops {
 public:
  explicit CpuOps(int threads);

  Device device() const override { return {}; }
  std::string device_name() const override { return "CPU"; }
  DType compute_type() const override { return DType::f32; }
  void synchronize() override {}
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

 private:
  /// `floats` of scratch, 64-byte aligned; std::logic_error if less was lent.
  float* scratch(std::int64_t floats, const char* op) const;

  int threads_;
  Tensor scratch_;
};

// Scratch of the operations that need some, in floats over all threads.
std::int64_t attention_scratch(const OpShapes& shapes, int threads);
std::int64_t recurrence_scratch(const OpShapes& shapes, int threads);
std::int64_t norm_scratch(std::int64_t width);

}  // namespace ratplus::cpu
