#include "lib/model/feed_forward.h"

namespace ratplus::model {

FeedForward::FeedForward(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes)
    : config_(config) {
  const auto rows = shapes.rows();
  const auto d = config.width;
  arena.category("activations");
  saved_.stream = arena.allocate(DType::f32, {rows, d});
  saved_.rstd = arena.allocate(DType::f32, {rows});
  saved_.u = arena.allocate(compute, {rows, d});
  saved_.h = arena.allocate(compute, {rows, 4 * d});
  saved_.z = arena.allocate(compute, {rows, 4 * d});
}

void FeedForward::forward(Ops& ops, const Parameters& w, Tensor x, Workspace& work) {
  ops.residual_rms_norm_forward(saved_.stream, saved_.u, saved_.rstd, x, work.delta, w.ln, config_.norm_eps);
  ops.matmul(saved_.h, saved_.u, w.fc1, {.transpose_b = true});
  ops.gelu_forward(saved_.z, saved_.h);
  ops.matmul(work.delta, saved_.z, w.fc2, {.transpose_b = true});
}

void FeedForward::backward(Ops& ops, const Parameters& w, const Parameters& grad, Workspace& work) {
  const auto wide = work.wide_rows(4 * config_.width);
  const auto dlayer = work.layer_gradient(ops);
  ops.matmul(grad.fc2, dlayer, saved_.z, {.transpose_a = true, .accumulate = true});
  ops.matmul(wide, dlayer, w.fc2, {});
  ops.gelu_backward(wide, wide, saved_.h);
  ops.matmul(grad.fc1, wide, saved_.u, {.transpose_a = true, .accumulate = true});
  ops.matmul(work.dz, wide, w.fc1, {});
  ops.residual_rms_norm_backward(work.dstream, grad.ln, work.dz, work.dstream, saved_.stream, saved_.rstd,
                                 w.ln);
}

}  // namespace ratplus::model
