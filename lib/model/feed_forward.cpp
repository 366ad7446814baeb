#include "lib/model/feed_forward.h"

#include "lib/model/linear.h"

namespace ratplus::model {

FeedForward::FeedForward(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
                         const Workspace& work)
    : config_(config), recompute_(shapes.recompute) {
  const auto rows = shapes.rows();
  const auto d = config.width;
  arena.category("activations");
  saved_.stream = arena.allocate(DType::f32, {rows, d});
  saved_.rstd = arena.allocate(DType::f32, {rows});
  saved_.u = work.u ? work.u : arena.allocate(compute, {rows, d});
  saved_.h = arena.allocate(compute, {rows, 4 * d});
  saved_.z = work.activated ? work.activated : arena.allocate(compute, {rows, 4 * d});
}

void FeedForward::activate(Ops& ops, const Parameters& w, Tensor x, const Workspace& work) {
  ops.residual_rms_norm_forward({.y = saved_.stream,
                                 .u = saved_.u,
                                 .rstd = saved_.rstd,
                                 .x = x,
                                 .delta = work.delta,
                                 .weight = w.ln,
                                 .eps = config_.norm_eps});
  linear::forward(ops, saved_.h, saved_.u, w.fc1);
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
    ops.residual_rms_norm_forward(
        {.u = saved_.u, .rstd = saved_.rstd, .x = saved_.stream, .weight = w.ln, .eps = config_.norm_eps});
    ops.gelu_forward(saved_.z, saved_.h);
  }
  linear::weight_gradient(ops, grad.fc2, work.dlayer, saved_.z, fresh);
  linear::input_gradient(ops, wide, work.dlayer, w.fc2);
  ops.gelu_backward(wide, wide, saved_.h);
  linear::weight_gradient(ops, grad.fc1, wide, saved_.u, fresh);
  linear::input_gradient(ops, work.dz, wide, w.fc1);
  ops.residual_rms_norm_backward({.dx = work.dstream,
                                  .dlayer = work.dlayer,
                                  .dweight = grad.ln,
                                  .du = work.dz,
                                  .dy = work.dstream,
                                  .y = saved_.stream,
                                  .rstd = saved_.rstd,
                                  .weight = w.ln});
}

}  // namespace ratplus::model
