// Rat: attention over the chunks of a gated recurrence that restarts in each (docs/model.md, section 8).
#pragma once

#include <array>
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

/// One layer's mixer, with chunks of L tokens and G queries and keys that H heads share, head h the one of h mod G:
///     u = RMSNorm(x);  z, v, f, q, k = in_proj u;  q', k', v~ = RoPE by floor(t / L) and recurrence;
///     a = attention(q', k', v~) under (L, 0, 0);  delta = out_proj (a sigmoid(z))
class RatMixer {
 public:
  static constexpr MixerKind kind = MixerKind::rat;
  static constexpr const char* name = "rat";
  static constexpr const char* title = "RAT";
  static constexpr bool shares_keys = false;  ///< model.kv_heads
  static std::vector<MixerSize> sizes() {
    return {{"chunk", &MixerConfig::chunk, 16, 2}, {"groups", &MixerConfig::groups, 2, 1}};
  }

  struct Parameters {
    Tensor input_norm;  ///< [d]
    Tensor in_proj;     ///< [3d + 2 G P, d]: rows of z, v, f, q, k
    Tensor out_proj;    ///< [d, d]
    Tensor gate_bias;   ///< f32 [d]

    template <typename F>
    static void for_each(Parameters& p, const LayerConfig& c, F f) {
      for_each_projection(p, c.model.width, wide_columns(c), f);
    }
    /// The gate's bias, and the most tokens that it remembers at first.
    static GateBias gate_bias_of(Parameters& p, const LayerConfig& c) {
      return {&p.gate_bias, c.model.width, c.mixer.chunk};
    }
  };

  RatMixer(Arena& arena, DType compute, const LayerConfig& config, const PassShapes& shapes,
           const Workspace& work);

  static std::optional<Pattern> own_pattern(const MixerConfig& c) { return Pattern{c.chunk, 0, 0}; }
  static std::int64_t wide_columns(const LayerConfig& c) {
    return 3 * c.model.width + 2 * c.mixer.groups * c.model.head_dim;
  }
  static MixerForm form(const LayerConfig& c);
  static double operations(const LayerConfig& c, HeadPatterns patterns, std::int64_t sequences,
                           std::int64_t tokens);

  /// As GatedAttention's; the pattern is the mixer's own.
  void forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns, Workspace& work);
  void backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, HeadPatterns,
                Workspace& work);
  Tensor stream() const { return norm_.stream; }
  void keep_stream_in(Tensor stream) { norm_.stream = stream; }

 private:
  Tensor heads_of(const Tensor& projection, const ProjectionPart& part) const {
    return part.heads_of(projection, shapes_, config_.model.head_dim);
  }
  Tensor bias_of(const Parameters& w) const {
    return w.gate_bias.view({config_.model.heads(), config_.model.head_dim});
  }
  void recur_and_rotate(Ops& ops, const Parameters& w, const Workspace& work);
  void gate(Ops& ops);

  LayerConfig config_;
  PassShapes shapes_;
  std::array<Pattern, 1> own_;
  MixerForm form_;
  // Kept from forward to backward; q, k, v and z are the workspace's where Recompute is cheap.
  ResidualNorm norm_;
  Tensor projection_;  ///< [N, 3d + 2 G P]
  Tensor q_;           ///< [B, T, G, P]: q'
  Tensor k_, v_;       ///< [B, T, H, P]: k', v~
  Tensor a_;           ///< [B, T, H, P]
  Tensor lse_;         ///< f32 [B, H, T]
  Tensor z_;           ///< [N, d]: a sigmoid(z)
};

}  // namespace ratplus::model
