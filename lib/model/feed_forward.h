// FeedForward: RMSNorm, two products and the exact GELU between them (docs/model.md, section 9).
#pragma once

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/parameters.h"
#include "lib/model/residual_norm.h"
#include "lib/model/shapes.h"
#include "lib/model/workspace.h"

namespace ratplus::model {

/// One layer's delta = fc2 gelu(fc1 RMSNorm(x)).
class FeedForward {
 public:
  struct Parameters {
    Tensor ln;   ///< [d]
    Tensor fc1;  ///< [4d, d]
    Tensor fc2;  ///< [d, 4d]

    template <typename F>
    static void for_each(Parameters& p, const ModelConfig& c, F f) {
      f("ln.weight", p.ln, Shape{c.width}, parallel::Initial::one);
      f("fc1.weight", p.fc1, Shape{4 * c.width, c.width}, parallel::Initial::normal);
      f("fc2.weight", p.fc2, Shape{c.width, 4 * c.width}, parallel::Initial::normal);
    }
  };

  /// Columns of Workspace::wide that the backward needs.
  static std::int64_t wide_columns(const ModelConfig& c) { return 4 * c.width; }

  FeedForward(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
              const Workspace& work);

  /// As a mixer's: the stream is x + work.delta on entry; work.delta is this layer's addition on return.
  void forward(Ops& ops, const Parameters& w, Tensor x, Workspace& work);
  /// The forward without its last product: all that the backward needs.
  void activate(Ops& ops, const Parameters& w, Tensor x, const Workspace& work);
  void backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, Workspace& work);

  Tensor stream() const { return saved_.norm.stream; }

 private:
  struct Saved {
    ResidualNorm norm;
    Tensor h;  // [N, 4d]
    Tensor z;  // [N, 4d]: gelu(h); the workspace's where Recompute is cheap
  };

  ModelConfig config_;
  Recompute recompute_;
  Saved saved_;
};

}  // namespace ratplus::model
