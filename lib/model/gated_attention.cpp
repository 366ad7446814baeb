#include "lib/model/gated_attention.h"

#include "lib/model/linear.h"
#include "lib/model/operations.h"

namespace ratplus::model {

template <bool recurrence>
GatedAttention<recurrence>::GatedAttention(Arena& arena, DType compute, const LayerConfig& config,
                                           const PassShapes& shapes, const Workspace& work)
    : config_(config.model), shapes_(shapes), form_(form(config)) {
  const auto rows = shapes.rows();
  const auto d = config_.width, of_keys = config_.key_width();
  const auto keep = [&](const Tensor& shared, std::int64_t columns) {
    return Workspace::shared_or_own(shared, arena, compute, rows, columns);
  };
  const auto as_heads = [&](const Tensor& x) { return model::as_heads(x, shapes, config_.head_dim); };
  arena.category("activations");
  saved_.norm = ResidualNorm(arena, compute, d, shapes, work, true);
  saved_.projection = arena.allocate(compute, {rows, wide_columns(config)});
  saved_.q = as_heads(keep(work.q, d));
  saved_.k = as_heads(keep(work.k, of_keys));
  saved_.v = as_heads(keep(work.v, of_keys));
  saved_.a = as_heads(arena.allocate(compute, {rows, d}));
  saved_.lse = arena.allocate(DType::f32, {shapes.batch, config_.heads(), shapes.tokens});
  saved_.z = keep(work.z, d);
}

template <bool recurrence>
MixerForm GatedAttention<recurrence>::form(const LayerConfig& c) {
  const auto d = c.model.width, of_keys = c.model.key_width();
  MixerForm form;
  form.o = {0, d}, form.q = {d, d}, form.k = {2 * d, of_keys}, form.v = {form.k.end(), of_keys};
  if (recurrence) form.f = {form.v.end(), of_keys};
  return form;
}

template <bool recurrence>
double GatedAttention<recurrence>::operations(const LayerConfig& c, HeadPatterns patterns,
                                              std::int64_t sequences, std::int64_t tokens) {
  return attention_operations(c.model, patterns, sequences, tokens);
}

template <bool recurrence>
void GatedAttention<recurrence>::recur_and_rotate(Ops& ops, const Workspace& work) {
  ops.recurrence_rope_forward({.q_rot = saved_.q,
                               .k_rot = saved_.k,
                               .v_rec = saved_.v,
                               .q = heads_of(saved_.projection, form_.q),
                               .k = heads_of(saved_.projection, form_.k),
                               .v = heads_of(saved_.projection, form_.v),
                               .f = recurrence ? heads_of(saved_.projection, form_.f) : Tensor(),
                               .rope = work.rope});
}

template <bool recurrence>
void GatedAttention<recurrence>::gate(Ops& ops) {
  ops.output_gate_forward(saved_.z, saved_.a.view({shapes_.rows(), config_.width}),
                          form_.o.rows_of(saved_.projection));
}

template <bool recurrence>
void GatedAttention<recurrence>::forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta,
                                         HeadPatterns patterns, Workspace& work) {
  saved_.norm.forward(ops, w.input_norm, x, delta, config_.norm_eps);
  linear::forward(ops, saved_.projection, saved_.norm.u, w.in_proj);
  recur_and_rotate(ops, work);
  ops.attention_forward({.out = saved_.a,
                         .lse = saved_.lse,
                         .q = saved_.q,
                         .k = saved_.k,
                         .v = saved_.v,
                         .patterns = patterns});
  gate(ops);
  linear::forward(ops, work.delta, saved_.z, w.out_proj);
}

template <bool recurrence>
void GatedAttention<recurrence>::backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh,
                                          HeadPatterns patterns, Workspace& work) {
  if (fresh) ops.fill(grad.input_norm, 0);
  const auto rows = shapes_.rows();
  const auto d = config_.width;
  const auto as_heads = [&](const Tensor& x) { return model::as_heads(x, shapes_, config_.head_dim); };
  const auto wide = work.wide_rows(saved_.projection.size(1));
  const auto dk = as_heads(Workspace::narrowed(work.dk, config_.key_width()));
  const auto dv = as_heads(Workspace::narrowed(work.dv, config_.key_width()));
  if (shapes_.recompute == Recompute::cheap) {
    saved_.norm.forward(ops, w.input_norm, saved_.norm.stream, {}, config_.norm_eps);
    recur_and_rotate(ops, work);
    gate(ops);
  }
  linear::weight_gradient(ops, grad.out_proj, work.dlayer, saved_.z, fresh);
  linear::input_gradient(ops, work.dz, work.dlayer, w.out_proj);
  ops.output_gate_backward(work.dz, form_.o.rows_of(wide), work.dz, saved_.a.view({rows, d}),
                           form_.o.rows_of(saved_.projection));
  ops.attention_backward({.dq = as_heads(work.dq),
                          .dk = dk,
                          .dv = dv,
                          .dout = as_heads(work.dz),
                          .out = saved_.a,
                          .lse = saved_.lse,
                          .q = saved_.q,
                          .k = saved_.k,
                          .v = saved_.v,
                          .patterns = patterns});
  ops.recurrence_rope_backward({.dq = heads_of(wide, form_.q),
                                .dk = heads_of(wide, form_.k),
                                .dv = heads_of(wide, form_.v),
                                .df = recurrence ? heads_of(wide, form_.f) : Tensor(),
                                .dq_rot = as_heads(work.dq),
                                .dk_rot = dk,
                                .dv_rec = dv,
                                .k = heads_of(saved_.projection, form_.k),
                                .v = heads_of(saved_.projection, form_.v),
                                .f = recurrence ? heads_of(saved_.projection, form_.f) : Tensor(),
                                .k_rot = saved_.k,
                                .v_rec = saved_.v,
                                .rope = work.rope});
  linear::weight_gradient(ops, grad.in_proj, wide, saved_.norm.u, fresh);
  linear::input_gradient(ops, work.dz, wide, w.in_proj);
  saved_.norm.backward(ops, w.input_norm, grad.input_norm, work.dz, work);
}

template class GatedAttention<true>;
template class GatedAttention<false>;

}  // namespace ratplus::model
