// Rnn: the gated recurrence of values over the whole sequence, and an output gate (docs/model.md, section 8).
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
///     u = RMSNorm(x);  z, v, f = in_proj u;  g = sigmoid(f + b);  h_t = g_t h_{t-1} + (1 - g_t) v_t;
///     delta = out_proj (h sigmoid(z))
class RnnMixer {
 public:
  static constexpr MixerKind kind = MixerKind::rnn;
  static constexpr const char* name = "rnn";
  static constexpr const char* title = "RNN";
  static constexpr bool shares_keys = false;  ///< model.kv_heads
  static std::vector<MixerSize> sizes() { return {{"memory", &MixerConfig::memory, 4096, 2}}; }

  struct Parameters {
    Tensor input_norm;  ///< [d]
    Tensor in_proj;     ///< [3d, d]: rows of z, v, f
    Tensor out_proj;    ///< [d, d]
    Tensor gate_bias;   ///< f32 [d]

    template <typename F>
    static void for_each(Parameters& p, const LayerConfig& c, F f) {
      for_each_projection(p, c.model.width, wide_columns(c), f);
    }
    static GateBias gate_bias_of(Parameters& p, const LayerConfig& c) {
      return {&p.gate_bias, c.model.width, c.mixer.memory};
    }
  };

  RnnMixer(Arena& arena, DType compute, const LayerConfig& config, const PassShapes& shapes,
           const Workspace& work);

  /// Of the own token alone: no pattern can be given.
  static std::optional<Pattern> own_pattern(const MixerConfig&) {
    return Pattern{Pattern::no_dilation, 0, 0};
  }
  static std::int64_t wide_columns(const LayerConfig& c) { return 3 * c.model.width; }
  static MixerForm form(const LayerConfig& c);
  /// None beside the products: there is no attention.
  static double operations(const LayerConfig&, HeadPatterns, std::int64_t, std::int64_t) { return 0; }

  /// As GatedAttention's, without a pattern.
  void forward(Ops& ops, const Parameters& w, Tensor x, Tensor delta, HeadPatterns, Workspace& work);
  void backward(Ops& ops, const Parameters& w, const Parameters& grad, bool fresh, HeadPatterns,
                Workspace& work);
  Tensor stream() const { return norm_.stream; }
  void keep_stream_in(Tensor stream) { norm_.stream = stream; }

 private:
  Tensor heads_of(const Tensor& projection, const ProjectionPart& part) const {
    return part.heads_of(projection, shapes_, config_.head_dim);
  }
  Tensor bias_of(const Parameters& w) const { return w.gate_bias.view({config_.heads(), config_.head_dim}); }
  void recur(Ops& ops, const Parameters& w);
  void gate(Ops& ops);

  ModelConfig config_;
  PassShapes shapes_;
  MixerForm form_;
  // Kept from forward to backward; h and z are the workspace's where Recompute is cheap.
  ResidualNorm norm_;
  Tensor projection_;  ///< [N, 3d]
  Tensor h_;           ///< [N, d]
  Tensor z_;           ///< [N, d]: h sigmoid(z)
};

}  // namespace ratplus::model
