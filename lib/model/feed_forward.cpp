#include "lib/model/feed_forward.h"

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
  ops.residual_rms_norm_forward(saved_.stream, saved_.u, saved_.rstd, x, work.delta, w.ln, config_.norm_eps);
  ops.matmul(saved_.h, saved_.u, w.fc1, {.transpose_b = true});
  ops.gelu_forward(saved_.z, saved_.h);
}

void FeedForward::forward(Ops& ops, const Parameters& w, Tensor x, Workspace& work) {
  activate(ops, w, x, work);
  ops.matmul(work.delta, saved_.z, w.fc2, {.transpose_b = true});
}

void FeedForward::backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh,
                           Workspace& work) {
  if (fresh) ops.fill(grad.ln, 0);
  const auto wide = work.wide_rows(4 * config_.width);
  if (recompute_ == Recompute::cheap) {
    ops.residual_rms_norm_forward({}, saved_.u, saved_.rstd, saved_.stream, {}, w.ln, config_.norm_eps);
    ops.gelu_forward(saved_.z, saved_.h);
  }
  ops.matmul(grad.fc2, work.dlayer, saved_.z, {.transpose_a = true, .accumulate = !fresh});
  ops.matmul(wide, work.dlayer, w.fc2, {});
  ops.gelu_backward(wide, wide, saved_.h);
  ops.matmul(grad.fc1, wide, saved_.u, {.transpose_a = true, .accumulate = !fresh});
  ops.matmul(work.dz, wide, w.fc1, {});
  ops.residual_rms_norm_backward(work.dstream, work.dlayer, grad.ln, work.dz, work.dstream, saved_.stream,
                                 saved_.rstd, w.ln);
}

}  // namespace ratplus::model
