#include "lib/model/attention.h"

#include "lib/model/linear.h"
#include "lib/model/operations.h"

namespace ratplus::model {

template <bool local>
Attention<local>::Attention(Arena& arena, DType compute, const LayerConfig& config, const PassShapes& shapes,
                            const Workspace& work)
    : config_(config.model),
      shapes_(shapes),
      own_{own_pattern(config.mixer).value_or(Pattern{})},
      form_(form(config)) {
  const auto rows = shapes.rows();
  const auto d = config_.width, of_keys = config_.key_width(), p = config_.head_dim;
  arena.category("activations");
  norm_ = ResidualNorm(arena, compute, d, shapes, work, true);
  projection_ = arena.allocate(compute, {rows, wide_columns(config)});
  const auto keep = [&](const Tensor& shared, std::int64_t columns) {
    return as_heads(Workspace::shared_or_own(shared, arena, compute, rows, columns), shapes, p);
  };
  q_ = keep(work.q, d);
  k_ = keep(work.k, of_keys);
  a_ = as_heads(arena.allocate(compute, {rows, d}), shapes, p);
  lse_ = arena.allocate(DType::f32, {shapes.batch, config_.heads(), shapes.tokens});
}

template <bool local>
MixerForm Attention<local>::form(const LayerConfig& c) {
  const auto of_keys = c.model.key_width();
  MixerForm form;
  form.v = {0, of_keys}, form.q = {form.v.end(), c.model.width}, form.k = {form.q.end(), of_keys};
  return form;
}

template <bool local>
double Attention<local>::operations(const LayerConfig& c, HeadPatterns patterns, std::int64_t sequences,
                                    std::int64_t tokens) {
  const std::array own{own_pattern(c.mixer).value_or(Pattern{})};
  return attention_operations(c.model, local ? HeadPatterns(own) : patterns, sequences, tokens);
}

template <bool local>
void Attention<local>::rotate(Ops& ops, const Workspace& work) {
  ops.recurrence_rope_forward({.q_rot = q_,
                               .k_rot = k_,
                               .q = heads_of(projection_, form_.q),
                               .k = heads_of(projection_, form_.k),
                               .rope = work.rope});
}

template <bool local>
void Attention<local>::forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns patterns,
                               Workspace& work) {
  norm_.forward(ops, w.input_norm, x, delta, config_.norm_eps);
  linear::forward(ops, projection_, norm_.u, w.in_proj);
  rotate(ops, work);
  ops.attention_forward({.out = a_,
                         .lse = lse_,
                         .q = q_,
                         .k = k_,
                         .v = heads_of(projection_, form_.v),
                         .patterns = patterns_of(patterns)});
  linear::forward(ops, work.delta, a_.view({shapes_.rows(), config_.width}), w.out_proj);
}

template <bool local>
void Attention<local>::backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh,
                                HeadPatterns patterns, Workspace& work) {
  if (fresh) ops.fill(grad.input_norm, 0);
  const auto d = config_.width, p = config_.head_dim;
  const auto wide = work.wide_rows(projection_.size(1));
  const auto dq = as_heads(work.dq, shapes_, p);
  const auto dk = as_heads(Workspace::narrowed(work.dk, config_.key_width()), shapes_, p);
  if (shapes_.recompute == Recompute::cheap) {
    norm_.forward(ops, w.input_norm, norm_.stream, {}, config_.norm_eps);
    rotate(ops, work);
  }
  linear::weight_gradient(ops, grad.out_proj, work.dlayer, a_.view({shapes_.rows(), d}), fresh);
  linear::input_gradient(ops, work.dz, work.dlayer, w.out_proj);
  ops.attention_backward({.dq = dq,
                          .dk = dk,
                          .dv = heads_of(wide, form_.v),
                          .dout = as_heads(work.dz, shapes_, p),
                          .out = a_,
                          .lse = lse_,
                          .q = q_,
                          .k = k_,
                          .v = heads_of(projection_, form_.v),
                          .patterns = patterns_of(patterns)});
  ops.recurrence_rope_backward({.dq = heads_of(wide, form_.q),
                                .dk = heads_of(wide, form_.k),
                                .dq_rot = dq,
                                .dk_rot = dk,
                                .rope = work.rope});
  linear::weight_gradient(ops, grad.in_proj, wide, norm_.u, fresh);
  linear::input_gradient(ops, work.dz, wide, w.in_proj);
  norm_.backward(ops, w.input_norm, grad.input_norm, work.dz, work);
}

template class Attention<true>;
template class Attention<false>;

}  // namespace ratplus::model
