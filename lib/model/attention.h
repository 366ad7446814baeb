// Attention without an output gate, over all earlier tokens or a window of them (docs/model.md, section 8).
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

/// One layer's mixer:
///     u = RMSNorm(x);  v, q, k = in_proj u;  q', k' = RoPE(q), RoPE(k);  delta = out_proj attention(q', k', v)
/// under the job's pattern, or, where it is local, under (none, W, 0).
template <bool local>
class Attention {
 public:
  static constexpr MixerKind kind = local ? MixerKind::local_attention : MixerKind::attention;
  static constexpr const char* name = local ? "local_attention" : "attention";
  static constexpr const char* title = local ? "local attention" : "attention";
  static constexpr bool shares_keys = true;  ///< model.kv_heads
  static std::vector<MixerSize> sizes() {
    if (!local) return {};
    return {{"window", &MixerConfig::window, 1024, 0}};
  }

  struct Parameters {
    Tensor input_norm;  ///< [d]
    Tensor in_proj;     ///< [d + 2 Hk P, d]: rows of v, q, k
    Tensor out_proj;    ///< [d, d]

    template <typename F>
    static void for_each(Parameters& p, const LayerConfig& c, F f) {
      for_each_projection(p, c.model.width, wide_columns(c), f);
    }
  };

  Attention(Arena& arena, DType compute, const LayerConfig& config, const PassShapes& shapes,
            const Workspace& work);

  /// The mixer's own pattern; empty: the job's.
  static std::optional<Pattern> own_pattern(const MixerConfig& c) {
    if (!local) return std::nullopt;
    return Pattern{Pattern::no_dilation, c.window, 0};
  }
  static std::int64_t wide_columns(const LayerConfig& c) { return c.model.width + 2 * c.model.key_width(); }
  static MixerForm form(const LayerConfig& c);
  static double operations(const LayerConfig& c, HeadPatterns patterns, std::int64_t sequences,
                           std::int64_t tokens);

  /// As GatedAttention's.
  void forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns patterns, Workspace& work);
  void backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, HeadPatterns patterns,
                Workspace& work);
  Tensor stream() const { return norm_.stream; }
  void keep_stream_in(Tensor stream) { norm_.stream = stream; }

 private:
  HeadPatterns patterns_of(HeadPatterns given) const { return local ? HeadPatterns(own_) : given; }
  Tensor heads_of(const Tensor& projection, const ProjectionPart& part) const {
    return part.heads_of(projection, shapes_, config_.head_dim);
  }
  void rotate(Ops& ops, const Workspace& work);

  ModelConfig config_;
  PassShapes shapes_;
  std::array<Pattern, 1> own_;
  MixerForm form_;
  // Kept from forward to backward; q and k are the workspace's where Recompute is cheap.
  ResidualNorm norm_;
  Tensor projection_;  ///< [N, d + 2 Hk P]
  Tensor q_, k_;       ///< [B, T, H or Hk, P]: q', k'
  Tensor a_;           ///< [B, T, H, P]
  Tensor lse_;         ///< f32 [B, H, T]
};

extern template class Attention<true>;
extern template class Attention<false>;

using AttentionMixer = Attention<false>;
using LocalAttentionMixer = Attention<true>;

}  // namespace ratplus::model
