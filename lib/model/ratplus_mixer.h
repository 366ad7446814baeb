// RatPlusMixer: attention augmented by a gated linear recurrence (docs/model.md, section 4), or without it the
// attention baseline (docs/model.md, section 8).
#pragma once

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/parameters.h"
#include "lib/model/shapes.h"
#include "lib/model/workspace.h"

namespace ratplus::model {

/// One layer's mixer:
///     u = RMSNorm(x);  o, q, k, v, f = in_proj u;  q', k', v~ = RoPE and recurrence;
///     a = attention(q', k', v~);  delta = out_proj (a sigmoid(o))
class RatPlusMixer {
 public:
  struct Parameters {
    Tensor input_norm;  ///< [d]
    Tensor in_proj;     ///< [5d, d]: rows of o, q, k, v, f; [4d, d] without recurrence
    Tensor out_proj;    ///< [d, d]

    template <typename F>
    static void for_each(Parameters& p, const ModelConfig& c, F f) {
      f("input_norm.weight", p.input_norm, Shape{c.width});
      f("in_proj.weight", p.in_proj, Shape{projections(c) * c.width, c.width});
      f("out_proj.weight", p.out_proj, Shape{c.width, c.width});
    }
  };

  RatPlusMixer(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
               const Workspace& work);

  /// x: the stream before, f32 [N, d]; work.delta: what is still to be added to it (empty for the first layer).
  /// Leaves the sum in stream() and the mixer's own addition in work.delta.
  void forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns patterns, Workspace& work);
  /// work.dstream and dlayer: gradient at the stream after the mixer on entry, before it on return. Into grad: added,
  /// or instead of what is there if it is fresh.
  void backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, HeadPatterns patterns,
                Workspace& work);

  /// The residual stream as this layer's norm saw it.
  Tensor stream() const { return saved_.stream; }
  /// Keeps the stream there from now on, f32 [N, d].
  void keep_stream_in(Tensor stream) { saved_.stream = stream; }

 private:
  static std::int64_t projections(const ModelConfig& c) { return c.recurrence ? 5 : 4; }
  Tensor part_of(const Tensor& projection, std::int64_t index) const;
  Tensor by_heads(const Tensor& projection) const;
  void normalize(Ops& ops, const Parameters& w, Tensor x, Tensor delta);
  void recur_and_rotate(Ops& ops, const Workspace& work);
  void gate(Ops& ops);

  /// Kept from forward to backward.
  struct Saved {
    Tensor stream;      // f32 [N, d]
    Tensor rstd;        // f32 [N]
    Tensor u;           // [N, d]
    Tensor projection;  // [N, 5d], as [B, T, 5, H, P] in heads()
    Tensor q, k, v;     // [B, T, H, P]: q', k', v~
    Tensor a;           // [B, T, H, P]
    Tensor lse;         // f32 [B, H, T]
    Tensor z;           // [N, d]: a sigmoid(o)
    // u, q, k, v and z are the workspace's where Recompute is cheap.
  };

  ModelConfig config_;
  PassShapes shapes_;
  Saved saved_;
};

}  // namespace ratplus::model
