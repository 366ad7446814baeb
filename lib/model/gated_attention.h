// GatedAttention: attention with an output gate, over the keys and values of a gated linear recurrence (RAT+:
// docs/model.md, section 4) or over plain ones (its baseline: section 8).
#pragma once

#include <optional>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/mixer_form.h"
#include "lib/model/parameters.h"
#include "lib/model/projection.h"
#include "lib/model/residual_norm.h"
#include "lib/model/shapes.h"
#include "lib/model/workspace.h"

namespace ratplus::model {

/// One layer's mixer:
///     u = RMSNorm(x);  o, q, k, v, f = in_proj u;  q', k', v~ = RoPE and recurrence;
///     a = attention(q', k', v~);  delta = out_proj (a sigmoid(o))
template <bool recurrence>
class GatedAttention {
 public:
  static constexpr MixerKind kind = recurrence ? MixerKind::ratplus : MixerKind::gated_attention;
  static constexpr const char* name = recurrence ? "ratplus" : "gated_attention";
  static constexpr const char* title = recurrence ? "RAT+" : "gated attention";
  static constexpr bool shares_keys = true;  ///< model.kv_heads
  static std::vector<MixerSize> sizes() { return {}; }

  struct Parameters {
    Tensor input_norm;  ///< [d]
    Tensor in_proj;     ///< [2d + 3 Hk P, d]: rows of o, q, k, v, f; [2d + 2 Hk P, d] without recurrence
    Tensor out_proj;    ///< [d, d]

    template <typename F>
    static void for_each(Parameters& p, const LayerConfig& c, F f) {
      for_each_projection(p, c.model.width, wide_columns(c), f);
    }
  };

  GatedAttention(Arena& arena, DType compute, const LayerConfig& config, const PassShapes& shapes,
                 const Workspace& work);

  /// The mixer's own pattern; empty: the job's.
  static std::optional<Pattern> own_pattern(const MixerConfig&) { return std::nullopt; }
  /// Columns of Workspace::wide that the backward needs: rows of in_proj.
  static std::int64_t wide_columns(const LayerConfig& c) {
    return 2 * c.model.width + (recurrence ? 3 : 2) * c.model.key_width();
  }
  static MixerForm form(const LayerConfig& c);
  /// Operations that the mathematics of forward and backward needs beside the products of the parameters, of `sequences`
  /// of `tokens`: those of attention, 12 P an attended pair and head.
  static double operations(const LayerConfig& c, HeadPatterns patterns, std::int64_t sequences,
                           std::int64_t tokens);

  /// x: the stream before, f32 [N, d]; work.delta: its pending addition (empty for the first layer). Leaves the sum in
  /// stream() and the mixer's own addition in work.delta.
  void forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns patterns, Workspace& work);
  /// work.dstream and dlayer: gradient at the stream after the mixer on entry, before it on return. Into grad: added,
  /// or instead of what is there if it is fresh.
  void backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, HeadPatterns patterns,
                Workspace& work);

  /// The residual stream as this layer's norm saw it.
  Tensor stream() const { return saved_.norm.stream; }
  /// Keeps the stream there from now on, f32 [N, d].
  void keep_stream_in(Tensor stream) { saved_.norm.stream = stream; }

 private:
  Tensor heads_of(const Tensor& projection, const ProjectionPart& part) const {
    return part.heads_of(projection, shapes_, config_.head_dim);
  }
  void recur_and_rotate(Ops& ops, const Workspace& work);
  void gate(Ops& ops);

  /// Kept from forward to backward.
  struct Saved {
    ResidualNorm norm;
    Tensor projection;  // [N, rows of in_proj]
    Tensor q, k, v;     // [B, T, H, P] and, of k and v, [B, T, Hk, P]: q', k', v~
    Tensor a;           // [B, T, H, P]
    Tensor lse;         // f32 [B, H, T]
    Tensor z;           // [N, d]: a sigmoid(o)
    // q, k, v and z are the workspace's where Recompute is cheap.
  };

  ModelConfig config_;  // of the model: all sizes are its own
  PassShapes shapes_;
  MixerForm form_;
  Saved saved_;
};

extern template class GatedAttention<true>;
extern template class GatedAttention<false>;

using RatPlusMixer = GatedAttention<true>;
using GatedAttentionMixer = GatedAttention<false>;

}  // namespace ratplus::model
