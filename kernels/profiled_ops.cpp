#include "kernels/profiled_ops.h"

#include <algorithm>

namespace ratplus {

void ProfiledOps::start() {
  calls_.clear();
  stopwatch_ = inner_->make_stopwatch();
}

std::vector<OpProfile> ProfiledOps::stop() {
  std::vector<OpProfile> kinds;
  for (const Call& call : calls_) {
    auto kind = std::ranges::find(kinds, call.kind, &OpProfile::kind);
    if (kind == kinds.end()) kind = kinds.insert(kinds.end(), OpProfile{.kind = call.kind});
    kind->seconds += stopwatch_->seconds(call.began, call.ended);
    ++kind->calls;
  }
  stopwatch_.reset();
  calls_.clear();
  return kinds;
}

template <typename Operation>
void ProfiledOps::timed(const char* kind, const Operation& operation) {
  if (!stopwatch_) return operation();
  const int began = stopwatch_->mark();
  operation();
  calls_.push_back({kind, began, stopwatch_->mark()});
}

template <typename Operation>
void ProfiledOps::timed(const char* kind, HeadPatterns patterns, const Operation& operation) {
  if (!stopwatch_) return operation();
  const bool one = std::ranges::all_of(patterns, [&](const Pattern& p) { return p == patterns.front(); });
  timed((std::string(kind) + " " + (one ? to_string(patterns.front()) : "by heads")).c_str(), operation);
}

void ProfiledOps::copy(Tensor dst, Tensor src) {
  timed("copy", [&] { inner_->copy(dst, src); });
}
void ProfiledOps::fill(Tensor x, float value) {
  timed("fill", [&] { inner_->fill(x, value); });
}
void ProfiledOps::add(Tensor y, Tensor x) {
  timed("add", [&] { inner_->add(y, x); });
}
void ProfiledOps::upload(Tensor dst, const void* host) {
  timed("upload", [&] { inner_->upload(dst, host); });
}
void ProfiledOps::download(void* host, Tensor src) {
  timed("download", [&] { inner_->download(host, src); });
}
void ProfiledOps::matmul(Tensor c, Tensor a, Tensor b, MatmulOptions options) {
  timed("matmul", [&] { inner_->matmul(c, a, b, options); });
}
void ProfiledOps::embedding_forward(Tensor x, Tensor tokens, Tensor table) {
  timed("embedding_forward", [&] { inner_->embedding_forward(x, tokens, table); });
}
void ProfiledOps::embedding_backward(Tensor dtable, Tensor dx, Tensor tokens) {
  timed("embedding_backward", [&] { inner_->embedding_backward(dtable, dx, tokens); });
}
void ProfiledOps::residual_rms_norm_forward(Tensor y, Tensor u, Tensor rstd, Tensor x, Tensor delta,
                                            Tensor weight, double eps) {
  timed("residual_rms_norm_forward",
        [&] { inner_->residual_rms_norm_forward(y, u, rstd, x, delta, weight, eps); });
}
void ProfiledOps::residual_rms_norm_backward(Tensor dx, Tensor dlayer, Tensor dweight, Tensor du, Tensor dy,
                                             Tensor y, Tensor rstd, Tensor weight) {
  timed("residual_rms_norm_backward",
        [&] { inner_->residual_rms_norm_backward(dx, dlayer, dweight, du, dy, y, rstd, weight); });
}
void ProfiledOps::rope_table(Tensor table, double base) {
  timed("rope_table", [&] { inner_->rope_table(table, base); });
}
void ProfiledOps::recurrence_rope_forward(Tensor q_rot, Tensor k_rot, Tensor v_rec, Tensor projection,
                                          Tensor rope) {
  timed("recurrence_rope_forward",
        [&] { inner_->recurrence_rope_forward(q_rot, k_rot, v_rec, projection, rope); });
}
void ProfiledOps::recurrence_rope_backward(Tensor dprojection, Tensor dq_rot, Tensor dk_rot, Tensor dv_rec,
                                           Tensor projection, Tensor k_rot, Tensor v_rec, Tensor rope) {
  timed("recurrence_rope_backward", [&] {
    inner_->recurrence_rope_backward(dprojection, dq_rot, dk_rot, dv_rec, projection, k_rot, v_rec, rope);
  });
}
void ProfiledOps::attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                    HeadPatterns patterns) {
  timed("attention_forward", patterns, [&] { inner_->attention_forward(out, lse, q, k, v, patterns); });
}
void ProfiledOps::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse,
                                     Tensor q, Tensor k, Tensor v, HeadPatterns patterns) {
  timed("attention_backward", patterns,
        [&] { inner_->attention_backward(dq, dk, dv, dout, out, lse, q, k, v, patterns); });
}
void ProfiledOps::output_gate_forward(Tensor z, Tensor a, Tensor o) {
  timed("output_gate_forward", [&] { inner_->output_gate_forward(z, a, o); });
}
void ProfiledOps::output_gate_backward(Tensor da, Tensor dgate, Tensor dz, Tensor a, Tensor o) {
  timed("output_gate_backward", [&] { inner_->output_gate_backward(da, dgate, dz, a, o); });
}
void ProfiledOps::gelu_forward(Tensor z, Tensor h) {
  timed("gelu_forward", [&] { inner_->gelu_forward(z, h); });
}
void ProfiledOps::gelu_backward(Tensor dh, Tensor dz, Tensor h) {
  timed("gelu_backward", [&] { inner_->gelu_backward(dh, dz, h); });
}
void ProfiledOps::cross_entropy(Tensor losses, Tensor logits, Tensor labels, double scale,
                                bool want_gradient) {
  timed("cross_entropy", [&] { inner_->cross_entropy(losses, logits, labels, scale, want_gradient); });
}
void ProfiledOps::hits(Tensor hits, Tensor logits, Tensor labels) {
  timed("hits", [&] { inner_->hits(hits, logits, labels); });
}
void ProfiledOps::add_sum(Tensor total, Tensor x) {
  timed("add_sum", [&] { inner_->add_sum(total, x); });
}
void ProfiledOps::add_sum_of_squares(Tensor total, Tensor x) {
  timed("add_sum_of_squares", [&] { inner_->add_sum_of_squares(total, x); });
}
void ProfiledOps::adamw(Tensor master, Tensor m, Tensor v, Tensor weights, Tensor gradient,
                        const AdamW& update) {
  timed("adamw", [&] { inner_->adamw(master, m, v, weights, gradient, update); });
}

}  // namespace ratplus
