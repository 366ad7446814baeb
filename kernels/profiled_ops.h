// ProfiledOps: a backend whose operations are timed one by one while it is asked to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ratplus {

/// What the operations of one kind took together.
struct OpProfile {
  std::string kind;    ///< "matmul", "attention_forward 64,0,0", ...
  double seconds = 0;  ///< on the device
  std::int64_t calls = 0;
};

/// Hands every operation to another backend. Between start() and stop() it also notes when each began and ended on
/// the device, without waiting for it.
class ProfiledOps final : public Ops {
 public:
  explicit ProfiledOps(std::unique_ptr<Ops> inner) : inner_(std::move(inner)) {}

  void start();
  /// Waits, and returns the kinds in the order of their first call.
  std::vector<OpProfile> stop();

  Device device() const override { return inner_->device(); }
  std::string device_name() const override { return inner_->device_name(); }
  DType compute_type() const override { return inner_->compute_type(); }
  void synchronize() override { inner_->synchronize(); }
  std::unique_ptr<Stopwatch> make_stopwatch() override { return inner_->make_stopwatch(); }
  std::int64_t scratch_bytes(const OpShapes& shapes) const override { return inner_->scratch_bytes(shapes); }
  void use_scratch(Tensor scratch) override { inner_->use_scratch(scratch); }

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
  struct Call {
    std::string kind;
    int began, ended;
  };

  template <typename Operation>
  void timed(const char* kind, const Operation& operation);
  template <typename Operation>
  void timed(const char* kind, HeadPatterns patterns, const Operation& operation);

  std::unique_ptr<Ops> inner_;
  std::unique_ptr<Stopwatch> stopwatch_;  ///< while profiling
  std::vector<Call> calls_;
};

}  // namespace ratplus
