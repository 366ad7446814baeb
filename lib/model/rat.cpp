#include "lib/model/rat.h"

#include "lib/model/linear.h"
#include "lib/model/operations.h"

namespace ratplus::model {

RatMixer::RatMixer(Arena& arena, DType compute, const LayerConfig& config, const PassShapes& shapes,
                   const Workspace& work)
    : config_(config), shapes_(shapes), own_{*own_pattern(config.mixer)}, form_(form(config)) {
  const auto rows = shapes.rows();
  const auto d = config.model.width, p = config.model.head_dim, of_groups = config.mixer.groups * p;
  const auto keep = [&](const Tensor& shared, std::int64_t columns) {
    return Workspace::shared_or_own(shared, arena, compute, rows, columns);
  };
  arena.category("activations");
  norm_ = ResidualNorm(arena, compute, d, shapes, work, true);
  projection_ = arena.allocate(compute, {rows, wide_columns(config)});
  q_ = as_heads(keep(work.q, of_groups), shapes, p);
  k_ = as_heads(keep(work.k, d), shapes, p);
  v_ = as_heads(keep(work.v, d), shapes, p);
  a_ = as_heads(arena.allocate(compute, {rows, d}), shapes, p);
  lse_ = arena.allocate(DType::f32, {shapes.batch, config.model.heads(), shapes.tokens});
  z_ = keep(work.z, d);
}

MixerForm RatMixer::form(const LayerConfig& c) {
  const auto d = c.model.width, of_groups = c.mixer.groups * c.model.head_dim;
  MixerForm form{.chunk = c.mixer.chunk};
  form.o = {0, d}, form.v = {d, d}, form.f = {2 * d, d};
  form.q = {3 * d, of_groups}, form.k = {form.q.end(), of_groups};
  return form;
}

double RatMixer::operations(const LayerConfig& c, HeadPatterns, std::int64_t sequences, std::int64_t tokens) {
  const std::array own{*own_pattern(c.mixer)};
  return attention_operations(c.model, own, sequences, tokens);
}

void RatMixer::recur_and_rotate(Ops& ops, const Parameters& w, const Workspace& work) {
  ops.recurrence_rope_forward({.q_rot = q_,
                               .k_rot = k_,
                               .v_rec = v_,
                               .q = heads_of(projection_, form_.q),
                               .k = heads_of(projection_, form_.k),
                               .v = heads_of(projection_, form_.v),
                               .f = heads_of(projection_, form_.f),
                               .gate_bias = bias_of(w),
                               .rope = work.rope_of(config_.mixer.chunk),
                               .chunk = config_.mixer.chunk});
}

void RatMixer::gate(Ops& ops) {
  ops.output_gate_forward(z_, a_.view({shapes_.rows(), config_.model.width}), form_.o.rows_of(projection_));
}

void RatMixer::forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns, Workspace& work) {
  norm_.forward(ops, w.input_norm, x, delta, config_.model.norm_eps);
  linear::forward(ops, projection_, norm_.u, w.in_proj);
  recur_and_rotate(ops, w, work);
  ops.attention_forward({.out = a_, .lse = lse_, .q = q_, .k = k_, .v = v_, .patterns = own_});
  gate(ops);
  linear::forward(ops, work.delta, z_, w.out_proj);
}

void RatMixer::backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, HeadPatterns,
                        Workspace& work) {
  if (fresh) ops.fill(grad.input_norm, 0);
  const auto p = config_.model.head_dim;
  const auto a = a_.view({shapes_.rows(), config_.model.width});
  const auto wide = work.wide_rows(projection_.size(1));
  const auto dq = as_heads(work.dq, shapes_, p), dk = as_heads(work.dk, shapes_, p),
             dv = as_heads(work.dv, shapes_, p);
  if (shapes_.recompute == Recompute::cheap) {
    norm_.forward(ops, w.input_norm, norm_.stream, {}, config_.model.norm_eps);
    recur_and_rotate(ops, w, work);
    gate(ops);
  }
  linear::weight_gradient(ops, grad.out_proj, work.dlayer, z_, fresh);
  linear::input_gradient(ops, work.dz, work.dlayer, w.out_proj);
  ops.output_gate_backward(work.dz, form_.o.rows_of(wide), work.dz, a, form_.o.rows_of(projection_));
  ops.attention_backward({.dq = dq,
                          .dk = dk,
                          .dv = dv,
                          .dout = as_heads(work.dz, shapes_, p),
                          .out = a_,
                          .lse = lse_,
                          .q = q_,
                          .k = k_,
                          .v = v_,
                          .patterns = own_});
  ops.recurrence_rope_backward({.dq = heads_of(wide, form_.q),
                                .dk = heads_of(wide, form_.k),
                                .dv = heads_of(wide, form_.v),
                                .df = heads_of(wide, form_.f),
                                .dq_rot = dq,
                                .dk_rot = dk,
                                .dv_rec = dv,
                                .k = heads_of(projection_, form_.k),
                                .v = heads_of(projection_, form_.v),
                                .f = heads_of(projection_, form_.f),
                                .gate_bias = bias_of(w),
                                .k_rot = k_,
                                .v_rec = v_,
                                .rope = work.rope_of(config_.mixer.chunk),
                                .chunk = config_.mixer.chunk});
  ops.add_column_sums(grad.gate_bias, form_.f.rows_of(wide));
  linear::weight_gradient(ops, grad.in_proj, wide, norm_.u, fresh);
  linear::input_gradient(ops, work.dz, wide, w.in_proj);
  norm_.backward(ops, w.input_norm, grad.input_norm, work.dz, work);
}

}  // namespace ratplus::model
