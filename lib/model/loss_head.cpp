#include "lib/model/loss_head.h"

#include <algorithm>

#include "lib/model/linear.h"

namespace ratplus::model {
namespace {

/// Bytes of logits held at once: enough rows for efficient products, far less than all of them. Each chunk's product
/// reads and writes the whole gradient of the embedding, which costs a GPU more than it costs a CPU.
std::int64_t logits_budget(const Device& device) {
  return std::int64_t{device.kind == DeviceKind::cuda ? 256 : 64} << 20;
}

/// Whole tiles of a GPU's products, and equal chunks as far as possible.
std::int64_t chunk_rows(const Arena& arena, DType compute, const ModelConfig& config, std::int64_t rows) {
  constexpr std::int64_t tile = 128;
  const auto fitting = logits_budget(arena.device()) / (config.vocab_size * size_of(compute));
  const auto chunks = (rows + fitting - 1) / std::max<std::int64_t>(fitting, 1);
  if (chunks <= 1) return rows;
  const auto equal = (rows + chunks - 1) / chunks;
  return std::min(rows, std::max((equal + tile - 1) / tile * tile, tile));
}

}  // namespace

LossHead::LossHead(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes)
    : config_(config), shapes_(shapes), chunk_(chunk_rows(arena, compute, config, shapes.rows())) {
  arena.category("activations");
  stream_ = arena.allocate(DType::f32, {shapes.rows(), config.width});
  rstd_ = arena.allocate(DType::f32, {shapes.rows()});
  h_ = arena.allocate(compute, {shapes.rows(), config.width});
  logits_ = arena.allocate(compute, {chunk_, config.vocab_size});
  losses_ = arena.allocate(DType::f32, {shapes.rows()});
}

void LossHead::norm(Ops& ops, const RootParameters& w, Tensor x, const Workspace& work) {
  ops.residual_rms_norm_forward({.y = stream_,
                                 .u = h_,
                                 .rstd = rstd_,
                                 .x = x,
                                 .delta = work.delta,
                                 .weight = w.final_norm,
                                 .eps = config_.norm_eps});
}

Tensor LossHead::hits() const {
  static_assert(sizeof(std::int32_t) == sizeof(float));
  return {rstd_.raw(), DType::i32, {shapes_.rows()}, rstd_.device()};
}

void LossHead::forward(Ops& ops, const RootParameters& w, Tensor x, Tensor labels, Tensor loss,
                       const Workspace& work, bool want_hits) {
  norm(ops, w, x, work);
  for (std::int64_t begin = 0; begin < shapes_.rows(); begin += chunk_) {
    const auto end = std::min(begin + chunk_, shapes_.rows());
    const auto logits = logits_.slice(0, 0, end - begin);
    linear::forward(ops, logits, h_.slice(0, begin, end), w.embedding);
    ops.cross_entropy(losses_.slice(0, begin, end), logits, labels.slice(0, begin, end), 1, false);
    if (want_hits) ops.hits(hits().slice(0, begin, end), logits, labels.slice(0, begin, end));
  }
  ops.add_sum(loss, losses_);
}

void LossHead::forward_backward(Ops& ops, const RootParameters& w, const RootParameters& grad, bool fresh,
                                Tensor x, Tensor labels, double scale, Tensor loss, Workspace& work) {
  norm(ops, w, x, work);
  if (fresh) ops.fill(grad.final_norm, 0);
  for (std::int64_t begin = 0; begin < shapes_.rows(); begin += chunk_) {
    const auto end = std::min(begin + chunk_, shapes_.rows());
    const auto h = h_.slice(0, begin, end);
    const auto logits = logits_.slice(0, 0, end - begin);
    linear::forward(ops, logits, h, w.embedding);
    ops.cross_entropy(losses_.slice(0, begin, end), logits, labels.slice(0, begin, end), scale, true);
    linear::weight_gradient(ops, grad.embedding, logits, h, fresh && begin == 0);
    linear::input_gradient(ops, work.dz.slice(0, begin, end), logits, w.embedding);
  }
  ops.residual_rms_norm_backward({.dx = work.dstream,
                                  .dlayer = work.dlayer,
                                  .dweight = grad.final_norm,
                                  .du = work.dz,
                                  .y = stream_,
                                  .rstd = rstd_,
                                  .weight = w.final_norm});
  ops.add_sum(loss, losses_);
}

void LossHead::logits(Ops& ops, Tensor out, const RootParameters& w, Tensor x, const Workspace& work) {
  norm(ops, w, x, work);
  linear::forward(ops, out, h_, w.embedding);
}

}  // namespace ratplus::model
