#include "lib/model/feed_forward.h"

#include "lib/model/linear.h"

namespace ratplus::model {

FeedForward::FeedForward(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
                         const Workspace& work)
    : config_(config), recompute_(shapes.recompute) {
  const auto rows = shapes.rows();
  const auto d = config.width;
  arena.category("activations");
  saved_.norm = ResidualNorm(arena, compute, d, shapes, work, false);
  saved_.h = arena.allocate(compute, {rows, 4 * d});
  saved_.z = Workspace::shared_or_own(work.activated, arena, compute, rows, 4 * d);
}

void FeedForward::activate(Ops& ops, const Parameters& w, Tensor x, const Workspace& work) {
  saved_.norm.forward(ops, w.ln, x, work.delta, config_.norm_eps);
  linear::forward(ops, saved_.h, saved_.norm.u, w.fc1);
  ops.gelu_forward(saved_.z, saved_.h);
}

void FeedForward::forward(Ops& ops, const Parameters& w, Tensor x, Workspace& work) {
  activate(ops, w, x, work);
  linear::forward(ops, work.delta, saved_.z, w.fc2);
}

void FeedForward::backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh,
                           Workspace& work) {
  if (fresh) ops.fill(grad.ln, 0);
  const auto wide = work.wide_rows(wide_columns(config_));
  if (recompute_ == Recompute::cheap) {
    saved_.norm.forward(ops, w.ln, saved_.norm.stream, {}, config_.norm_eps);
    ops.gelu_forward(saved_.z, saved_.h);
  }
  linear::weight_gradient(ops, grad.fc2, work.dlayer, saved_.z, fresh);
  linear::input_gradient(ops, wide, work.dlayer, w.fc2);
  ops.gelu_backward(wide, wide, saved_.h);
  linear::weight_gradient(ops, grad.fc1, wide, saved_.norm.u, fresh);
  linear::input_gradient(ops, work.dz, wide, w.fc1);
  saved_.norm.backward(ops, w.ln, grad.ln, work.dz, work);
}

}  // namespace ratplus::model
