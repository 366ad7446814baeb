// LossHead: final norm, logits against the embedding, cross-entropy and its gradient, in chunks of rows, so that
// logits are never held for all tokens (docs/model.md, section 10).
#pragma once

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/root.h"
#include "lib/model/shapes.h"
#include "lib/model/workspace.h"

namespace ratplus::model {

class LossHead {
 public:
  LossHead(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes);

  /// loss (f64 [1]) += the losses of the rows with a label (labels i32 [N], negative: left out). x + work.delta is
  /// the stream.
  void forward(Ops& ops, const RootParameters& w, Tensor x, Tensor labels, Tensor loss, const Workspace& work,
               bool want_hits);
  /// i32 [N], as Ops::hits gives them: of the last forward() with want_hits, until the next pass.
  Tensor hits() const;
  /// f32 [N]: the loss of each row of the last pass, 0 where it has no label; until the next pass.
  Tensor losses() const { return losses_; }
  /// The same, and the gradient of scale times their sum: into work.dstream and dlayer, and into grad: added, or
  /// instead of what is there if it is fresh.
  void forward_backward(Ops& ops, const RootParameters& w, const RootParameters& grad, bool fresh, Tensor x,
                        Tensor labels, double scale, Tensor loss, Workspace& work);
  /// All logits [N, V], for tests and for dumping them.
  void logits(Ops& ops, Tensor out, const RootParameters& w, Tensor x, const Workspace& work);

 private:
  void norm(Ops& ops, const RootParameters& w, Tensor x, const Workspace& work);

  ModelConfig config_;
  PassShapes shapes_;
  std::int64_t chunk_;  ///< rows whose logits are held at once
  Tensor stream_;       ///< f32 [N, d]
  Tensor rstd_;         ///< f32 [N]; the hits lie there too, since only a backward pass reads it
  Tensor h_;            ///< [N, d]
  Tensor logits_;       ///< [chunk, V]
  Tensor losses_;       ///< f32 [N]
};

}  // namespace ratplus::model
