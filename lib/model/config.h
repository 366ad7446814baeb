// ModelConfig: the sizes and choices that define a model; MixerConfig: those of one layer's mixer.
#pragma once

#include <cstdint>
#include <vector>

namespace ratplus::model {

/// The mixers that a block can hold (lib/model/mixers.h has the list with their names).
enum class MixerKind : std::uint8_t {
  ratplus,  ///< RAT+: attention over k~, v~ of a gated recurrence, with an output gate (docs/model.md, section 4)
  gated_attention  ///< its baseline: the same without recurrence (docs/model.md, section 8)
};

/// A layer's mixer: its kind, and the sizes that this kind has.
struct MixerConfig {
  MixerKind kind = MixerKind::ratplus;

  friend bool operator==(const MixerConfig&, const MixerConfig&) = default;
};

struct ModelConfig {
  std::int64_t layers = 24;
  std::int64_t width = 2048;    ///< d
  std::int64_t head_dim = 128;  ///< P; heads H = d / P
  std::int64_t vocab_size = 32000;
  std::vector<MixerConfig> mixers = {{}};  ///< one for all layers, or one a layer
  double rope_base = 10000;
  double norm_eps = 1e-6;
  double init_std = 0.02;

  std::int64_t heads() const { return width / head_dim; }
  /// The mixer of a layer.
  const MixerConfig& mixer(std::int64_t layer) const {
    return mixers[mixers.size() == 1 ? 0 : static_cast<std::size_t>(layer)];
  }
  /// The mixers that differ, in the order of their first layers.
  std::vector<MixerConfig> distinct_mixers() const;
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// The sizes that a layer's mixer sees.
struct LayerConfig {
  ModelConfig model;
  MixerConfig mixer;
};

}  // namespace ratplus::model
