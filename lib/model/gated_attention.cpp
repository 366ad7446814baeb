#include "lib/model/gated_attention.h"

#include "lib/model/linear.h"

namespace ratplus::model {

template <bool recurrence>
GatedAttention<recurrence>::GatedAttention(Arena& arena, DType compute, const LayerConfig& config,
                                           const PassShapes& shapes, const Workspace& work)
    : config_(config.model), shapes_(shapes) {
  const auto rows = shapes.rows();
  const auto d = config_.width;
  const auto keep = [&](const Tensor& shared) {
    return shared ? shared : arena.allocate(compute, {rows, d});
  };
  const auto as_heads = [&](const Tensor& x) {
    return x.view({shapes.batch, shapes.tokens, config_.heads(), config_.head_dim});
  };
  arena.category("activations");
  // Where only blocks' inputs are kept, the model has a place for each (keep_stream_in).
  if (shapes.recompute != Recompute::block) saved_.stream = arena.allocate(DType::f32, {rows, d});
  saved_.rstd = arena.allocate(DType::f32, {rows});
  saved_.u = keep(work.u);
  saved_.projection = arena.allocate(compute, {rows, projections * d});
  saved_.q = as_heads(keep(work.q));
  saved_.k = as_heads(keep(work.k));
  saved_.v = as_heads(keep(work.v));
  saved_.a = as_heads(arena.allocate(compute, {rows, d}));
  saved_.lse = arena.allocate(DType::f32, {shapes.batch, config_.heads(), shapes.tokens});
  saved_.z = keep(work.z);
}

template <bool recurrence>
double GatedAttention<recurrence>::operations(const LayerConfig& c, HeadPatterns patterns,
                                              std::int64_t sequences, std::int64_t tokens) {
  constexpr double each =
      operation::AttentionForward::operations_a_pair + operation::AttentionBackward::needed_a_pair;
  const double heads_each = static_cast<double>(c.model.heads()) / static_cast<double>(patterns.size());
  double operations = 0;
  for (const auto& pattern : patterns) {
    operations += each * heads_each * static_cast<double>(c.model.head_dim * sequences) *
                  attended_pairs(pattern, tokens);
  }
  return operations;
}

/// A part of a projection [N, 5d]: [N, d], strided.
template <bool recurrence>
Tensor GatedAttention<recurrence>::rows_of(const Tensor& projection, Part part) const {
  return projection.slice(1, part * config_.width, (part + 1) * config_.width);
}

/// A part of a projection [N, 5d] by heads: [B, T, H, P], strided.
template <bool recurrence>
Tensor GatedAttention<recurrence>::heads_of(const Tensor& projection, Part part) const {
  return projection.view({shapes_.batch, shapes_.tokens, projections, config_.heads(), config_.head_dim})
      .select(2, part);
}

/// stream = x + delta and its norm. A block that is computed again starts from the stream itself.
template <bool recurrence>
void GatedAttention<recurrence>::normalize(Ops& ops, const Parameters& w, Tensor x, Tensor delta) {
  const bool in_place = x.raw() == saved_.stream.raw();
  ops.residual_rms_norm_forward({.y = in_place ? Tensor() : saved_.stream,
                                 .u = saved_.u,
                                 .rstd = saved_.rstd,
                                 .x = x,
                                 .delta = delta,
                                 .weight = w.input_norm,
                                 .eps = config_.norm_eps});
}

template <bool recurrence>
void GatedAttention<recurrence>::recur_and_rotate(Ops& ops, const Workspace& work) {
  ops.recurrence_rope_forward({.q_rot = saved_.q,
                               .k_rot = saved_.k,
                               .v_rec = saved_.v,
                               .q = heads_of(saved_.projection, part_q),
                               .k = heads_of(saved_.projection, part_k),
                               .v = heads_of(saved_.projection, part_v),
                               .f = recurrence ? heads_of(saved_.projection, part_f) : Tensor(),
                               .rope = work.rope});
}

template <bool recurrence>
void GatedAttention<recurrence>::gate(Ops& ops) {
  ops.output_gate_forward(saved_.z, saved_.a.view({shapes_.rows(), config_.width}),
                          rows_of(saved_.projection, part_o));
}

template <bool recurrence>
void GatedAttention<recurrence>::forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta,
                                         HeadPatterns patterns, Workspace& work) {
  normalize(ops, w, x, delta);
  linear::forward(ops, saved_.projection, saved_.u, w.in_proj);
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
  const auto as_heads = [&](const Tensor& x) {
    return x.view({shapes_.batch, shapes_.tokens, config_.heads(), config_.head_dim});
  };
  const auto wide = work.wide_rows(projections * d);
  if (shapes_.recompute == Recompute::cheap) {
    normalize(ops, w, saved_.stream, {});
    recur_and_rotate(ops, work);
    gate(ops);
  }
  linear::weight_gradient(ops, grad.out_proj, work.dlayer, saved_.z, fresh);
  linear::input_gradient(ops, work.dz, work.dlayer, w.out_proj);
  ops.output_gate_backward(work.dz, rows_of(wide, part_o), work.dz, saved_.a.view({rows, d}),
                           rows_of(saved_.projection, part_o));
  ops.attention_backward({.dq = as_heads(work.dq),
                          .dk = as_heads(work.dk),
                          .dv = as_heads(work.dv),
                          .dout = as_heads(work.dz),
                          .out = saved_.a,
                          .lse = saved_.lse,
                          .q = saved_.q,
                          .k = saved_.k,
                          .v = saved_.v,
                          .patterns = patterns});
  ops.recurrence_rope_backward({.dq = heads_of(wide, part_q),
                                .dk = heads_of(wide, part_k),
                                .dv = heads_of(wide, part_v),
                                .df = recurrence ? heads_of(wide, part_f) : Tensor(),
                                .dq_rot = as_heads(work.dq),
                                .dk_rot = as_heads(work.dk),
                                .dv_rec = as_heads(work.dv),
                                .k = heads_of(saved_.projection, part_k),
                                .v = heads_of(saved_.projection, part_v),
                                .f = recurrence ? heads_of(saved_.projection, part_f) : Tensor(),
                                .k_rot = saved_.k,
                                .v_rec = saved_.v,
                                .rope = work.rope});
  linear::weight_gradient(ops, grad.in_proj, wide, saved_.u, fresh);
  linear::input_gradient(ops, work.dz, wide, w.in_proj);
  ops.residual_rms_norm_backward({.dx = work.dstream,
                                  .dlayer = work.dlayer,
                                  .dweight = grad.input_norm,
                                  .du = work.dz,
                                  .dy = work.dstream,
                                  .y = saved_.stream,
                                  .rstd = saved_.rstd,
                                  .weight = w.input_norm});
}

template class GatedAttention<true>;
template class GatedAttention<false>;

}  // namespace ratplus::model
