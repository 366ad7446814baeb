// ResidualNorm: the residual stream as a layer's norm sees it, and the norm (docs/model.md, section 3).
#pragma once

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/shapes.h"
#include "lib/model/workspace.h"

namespace ratplus::model {

/// stream = x + delta, u = RMSNorm(stream); kept from forward to backward.
struct ResidualNorm {
  Tensor stream;  ///< f32 [N, d]
  Tensor rstd;    ///< f32 [N]
  Tensor u;       ///< C [N, d]; the workspace's where Recompute is cheap

  ResidualNorm() = default;
  /// begins_block: of a mixer. Where only blocks' inputs are kept, the model has a place for each such stream
  /// (keep_stream_in).
  ResidualNorm(Arena& arena, DType compute, std::int64_t width, const PassShapes& shapes,
               const Workspace& work, bool begins_block) {
    const auto rows = shapes.rows();
    if (!begins_block || shapes.recompute != Recompute::block)
      stream = arena.allocate(DType::f32, {rows, width});
    rstd = arena.allocate(DType::f32, {rows});
    u = Workspace::shared_or_own(work.u, arena, compute, rows, width);
  }

  /// A block that is computed again starts from the stream itself, without delta.
  void forward(Ops& ops, Tensor weight, Tensor x, Tensor delta, double eps) const {
    const bool in_place = x.raw() == stream.raw();
    ops.residual_rms_norm_forward({.y = in_place ? Tensor() : stream,
                                   .u = u,
                                   .rstd = rstd,
                                   .x = x,
                                   .delta = delta,
                                   .weight = weight,
                                   .eps = eps});
  }

  /// du: C [N, d]. work.dstream and dlayer: the gradient after the layer on entry, before it on return.
  void backward(Ops& ops, Tensor weight, Tensor dweight, Tensor du, Workspace& work) const {
    ops.residual_rms_norm_backward({.dx = work.dstream,
                                    .dlayer = work.dlayer,
                                    .dweight = dweight,
                                    .du = du,
                                    .dy = work.dstream,
                                    .y = stream,
                                    .rstd = rstd,
                                    .weight = weight});
  }
};

}  // namespace ratplus::model
