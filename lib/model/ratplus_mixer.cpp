#include "lib/model/ratplus_mixer.h"

namespace ratplus::model {

RatPlusMixer::RatPlusMixer(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
                           const Workspace& work)
    : config_(config), shapes_(shapes) {
  const auto rows = shapes.rows();
  const auto d = config.width;
  const auto keep = [&](const Tensor& shared) {
    return shared ? shared : arena.allocate(compute, {rows, d});
  };
  const auto as_heads = [&](const Tensor& x) {
    return x.view({shapes.batch, shapes.tokens, config.heads(), config.head_dim});
  };
  arena.category("activations");
  // Where only blocks' inputs are kept, the model has a place for each (keep_stream_in).
  if (shapes.recompute != Recompute::block) saved_.stream = arena.allocate(DType::f32, {rows, d});
  saved_.rstd = arena.allocate(DType::f32, {rows});
  saved_.u = keep(work.u);
  saved_.projection = arena.allocate(compute, {rows, projections(config) * d});
  saved_.q = as_heads(keep(work.q));
  saved_.k = as_heads(keep(work.k));
  saved_.v = as_heads(keep(work.v));
  saved_.a = as_heads(arena.allocate(compute, {rows, d}));
  saved_.lse = arena.allocate(DType::f32, {shapes.batch, config.heads(), shapes.tokens});
  saved_.z = keep(work.z);
}

/// Part o, q, k, v or f of a projection [N, 5d]: [N, d], strided.
Tensor RatPlusMixer::part_of(const Tensor& projection, std::int64_t index) const {
  return projection.slice(1, index * config_.width, (index + 1) * config_.width);
}

/// A projection [N, 5d] by part and head: [B, T, 5, H, P].
Tensor RatPlusMixer::by_heads(const Tensor& projection) const {
  return projection.view(
      {shapes_.batch, shapes_.tokens, projections(config_), config_.heads(), config_.head_dim});
}

/// stream = x + delta and its norm. A block that is computed again starts from the stream itself.
void RatPlusMixer::normalize(Ops& ops, const Parameters& w, Tensor x, Tensor delta) {
  const bool in_place = x.raw() == saved_.stream.raw();
  ops.residual_rms_norm_forward(in_place ? Tensor() : saved_.stream, saved_.u, saved_.rstd, x, delta,
                                w.input_norm, config_.norm_eps);
}

void RatPlusMixer::recur_and_rotate(Ops& ops, const Workspace& work) {
  ops.recurrence_rope_forward(saved_.q, saved_.k, saved_.v, by_heads(saved_.projection), work.rope);
}

void RatPlusMixer::gate(Ops& ops) {
  ops.output_gate_forward(saved_.z, saved_.a.view({shapes_.rows(), config_.width}),
                          part_of(saved_.projection, 0));
}

void RatPlusMixer::forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns patterns,
                           Workspace& work) {
  normalize(ops, w, x, delta);
  ops.matmul(saved_.projection, saved_.u, w.in_proj, {.transpose_b = true});
  recur_and_rotate(ops, work);
  ops.attention_forward(saved_.a, saved_.lse, saved_.q, saved_.k, saved_.v, patterns);
  gate(ops);
  ops.matmul(work.delta, saved_.z, w.out_proj, {.transpose_b = true});
}

void RatPlusMixer::backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh,
                            HeadPatterns patterns, Workspace& work) {
  if (fresh) ops.fill(grad.input_norm, 0);
  const auto rows = shapes_.rows();
  const auto d = config_.width;
  const auto as_heads = [&](const Tensor& x) {
    return x.view({shapes_.batch, shapes_.tokens, config_.heads(), config_.head_dim});
  };
  const auto wide = work.wide_rows(projections(config_) * d);
  if (shapes_.recompute == Recompute::cheap) {
    normalize(ops, w, saved_.stream, {});
    recur_and_rotate(ops, work);
    gate(ops);
  }
  ops.matmul(grad.out_proj, work.dlayer, saved_.z, {.transpose_a = true, .accumulate = !fresh});
  ops.matmul(work.dz, work.dlayer, w.out_proj, {});
  ops.output_gate_backward(work.dz, part_of(wide, 0), work.dz, saved_.a.view({rows, d}),
                           part_of(saved_.projection, 0));
  ops.attention_backward(as_heads(work.dq), as_heads(work.dk), as_heads(work.dv), as_heads(work.dz), saved_.a,
                         saved_.lse, saved_.q, saved_.k, saved_.v, patterns);
  ops.recurrence_rope_backward(by_heads(wide), as_heads(work.dq), as_heads(work.dk), as_heads(work.dv),
                               by_heads(saved_.projection), saved_.k, saved_.v, work.rope);
  ops.matmul(grad.in_proj, wide, saved_.u, {.transpose_a = true, .accumulate = !fresh});
  ops.matmul(work.dz, wide, w.in_proj, {});
  ops.residual_rms_norm_backward(work.dstream, work.dlayer, grad.input_norm, work.dz, work.dstream,
                                 saved_.stream, saved_.rstd, w.input_norm);
}

}  // namespace ratplus::model
