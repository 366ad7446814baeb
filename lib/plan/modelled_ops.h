// ModelledOps: a backend that computes nothing. It counts what each operation would do on a GPU and how long that would
// take, so that a step of the program's own code can be gone through without a GPU and without memory.
#pragma once

#include <array>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "kernels/ops.h"
#include "lib/plan/cluster.h"
#include "lib/plan/modelled_time.h"

namespace ratplus::plan {

/// Where a step's time goes, as `ratplus bench step` shows it.
enum class Part {
  products,
  dense_attention,
  pattern_attention,
  recurrence,
  norms,
  gelu,
  gate,
  loss,
  sums,
  update
};
inline constexpr int part_count = 10;
const char* to_string(Part part);

/// Work of operations: of one part, or all.
struct Work {
  double operations = 0;  ///< that are carried out, what is made again included
  double bytes = 0;       ///< read from memory and written
  double seconds = 0;     ///< without collectives beside it
};

class ModelledOps final : public Ops {
 public:
  /// pace: 1, or less for a GPU that is slower than others of its kind.
  ModelledOps(const Gpu& gpu, DType compute, bool deterministic, double pace, ModelledTime& time);

  /// Since the beginning.
  const std::array<Work, part_count>& work() const { return work_; }

  Device device() const override { return {DeviceKind::cuda, 0}; }
  std::string device_name() const override { return std::string(gpu_.title); }
  DType compute_type() const override { return compute_; }
  void synchronize() override {}
  std::unique_ptr<Stopwatch> make_stopwatch() override;
  std::int64_t scratch_bytes(const OpShapes& shapes) const override;
  void use_scratch(Tensor) override {}

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
  /// Rates of attention: of what follows its pairs, and of what follows its tensors.
  struct AttentionRates {
    double dense, pattern, pattern_bytes;
  };

  void spend(Part part, double operations, double bytes, double seconds);
  void pass(Part part, double share, double bytes);
  void attend(const Tensor& q, HeadPatterns patterns, double operations_a_pair, double bytes,
              const AttentionRates& rates);
  double pairs(const Pattern& pattern, std::int64_t tokens);

  const Gpu& gpu_;
  DType compute_;
  bool deterministic_;
  double pace_;
  ModelledTime& time_;
  std::array<Work, part_count> work_{};
  /// Attended pairs of the patterns seen, by dilation, window, sinks and tokens.
  std::map<std::array<std::int64_t, 4>, double> pairs_;
};

}  // namespace ratplus::plan
