#include "lib/model/rnn.h"

#include "lib/model/linear.h"

namespace ratplus::model {

RnnMixer::RnnMixer(Arena& arena, DType compute, const LayerConfig& config, const PassShapes& shapes,
                   const Workspace& work)
    : config_(config.model), shapes_(shapes), form_(form(config)) {
  const auto rows = shapes.rows();
  const auto d = config_.width;
  arena.category("activations");
  norm_ = ResidualNorm(arena, compute, d, shapes, work, true);
  projection_ = arena.allocate(compute, {rows, wide_columns(config)});
  h_ = Workspace::shared_or_own(work.v, arena, compute, rows, d);
  z_ = Workspace::shared_or_own(work.z, arena, compute, rows, d);
}

MixerForm RnnMixer::form(const LayerConfig& c) {
  const auto d = c.model.width;
  MixerForm form;
  form.o = {0, d}, form.v = {d, d}, form.f = {2 * d, d};
  return form;
}

void RnnMixer::recur(Ops& ops, const Parameters& w) {
  ops.recurrence_rope_forward({.v_rec = as_heads(h_, shapes_, config_.head_dim),
                               .v = heads_of(projection_, form_.v),
                               .f = heads_of(projection_, form_.f),
                               .gate_bias = bias_of(w)});
}

void RnnMixer::gate(Ops& ops) {
  ops.output_gate_forward(z_, h_, form_.o.rows_of(projection_));
}

void RnnMixer::forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns, Workspace& work) {
  norm_.forward(ops, w.input_norm, x, delta, config_.norm_eps);
  linear::forward(ops, projection_, norm_.u, w.in_proj);
  recur(ops, w);
  gate(ops);
  linear::forward(ops, work.delta, z_, w.out_proj);
}

void RnnMixer::backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, HeadPatterns,
                        Workspace& work) {
  if (fresh) ops.fill(grad.input_norm, 0);
  const auto wide = work.wide_rows(projection_.size(1));
  if (shapes_.recompute == Recompute::cheap) {
    norm_.forward(ops, w.input_norm, norm_.stream, {}, config_.norm_eps);
    recur(ops, w);
    gate(ops);
  }
  linear::weight_gradient(ops, grad.out_proj, work.dlayer, z_, fresh);
  linear::input_gradient(ops, work.dz, work.dlayer, w.out_proj);
  ops.output_gate_backward(work.dz, form_.o.rows_of(wide), work.dz, h_, form_.o.rows_of(projection_));
  ops.recurrence_rope_backward({.dv = heads_of(wide, form_.v),
                                .df = heads_of(wide, form_.f),
                                .dv_rec = as_heads(work.dz, shapes_, config_.head_dim),
                                .v = heads_of(projection_, form_.v),
                                .f = heads_of(projection_, form_.f),
                                .gate_bias = bias_of(w),
                                .v_rec = as_heads(h_, shapes_, config_.head_dim)});
  ops.add_column_sums(grad.gate_bias, form_.f.rows_of(wide));
  linear::weight_gradient(ops, grad.in_proj, wide, norm_.u, fresh);
  linear::input_gradient(ops, work.dz, wide, w.in_proj);
  norm_.backward(ops, w.input_norm, grad.input_norm, work.dz, work);
}

}  // namespace ratplus::model
