// ModelConfig: the sizes and choices that define a model; MixerConfig: those of one layer's mixer.
#pragma once

#include <cstdint>
#include <vector>

namespace ratplus::model {

/// The mixers that a block can hold (lib/model/mixers.h has the list with their names).
enum class MixerKind : std::uint8_t {
  ratplus,  ///< RAT+: attention over k~, v~ of a gated recurrence, with an output gate (docs/model.md, section 4)
  gated_attention,  ///< its baseline: the same without recurrence (docs/model.md, section 8)
  attention,        ///< attention without an output gate (docs/model.md, section 8)
  local_attention,  ///< the same over a window (docs/model.md, section 8)
  rat,              ///< attention over the chunks of a gated recurrence (docs/model.md, section 8)
  rnn               ///< the gated recurrence alone (docs/model.md, section 8)
};

/// A layer's mixer: its kind, and the sizes that this kind has; the others are 0.
struct MixerConfig {
  MixerKind kind = MixerKind::ratplus;
  std::int64_t window = 0;  ///< W of local attention: tokens before the query
  std::int64_t chunk = 0;   ///< L of rat: tokens a chunk
  std::int64_t groups = 0;  ///< G of rat: queries and keys that all heads share
  std::int64_t memory = 0;  ///< of rnn: the most tokens that its gates remember at first

  friend bool operator==(const MixerConfig&, const MixerConfig&) = default;
};

/// A size that a mixer has: its name in job files and checkpoints, where it is not given, and at least.
struct MixerSize {
  const char* name;
  std::int64_t MixerConfig::*field;
  std::int64_t value;
  std::int64_t least;
};

struct ModelConfig {
  std::int64_t layers = 24;
  std::int64_t width = 2048;    ///< d
  std::int64_t head_dim = 128;  ///< P; heads H = d / P
  std::int64_t kv_heads = 0;    ///< heads of keys and values (and of gates), which H heads share; 0: H
  std::int64_t vocab_size = 32000;
  std::vector<MixerConfig> mixers = {{}};  ///< one for all layers, or one a layer
  double rope_base = 10000;
  double norm_eps = 1e-6;
  double init_std = 0.02;

  std::int64_t heads() const { return width / head_dim; }
  std::int64_t key_heads() const { return kv_heads == 0 ? heads() : kv_heads; }
  std::int64_t key_width() const { return key_heads() * head_dim; }
  /// The mixer of a layer; a list that is too short repeats.
  const MixerConfig& mixer(std::int64_t layer) const {
    return mixers[static_cast<std::size_t>(layer) % mixers.size()];
  }
  /// The mixers that differ, in the order of their first layers.
  std::vector<MixerConfig> distinct_mixers() const;
  /// Whether a layer may attend to every key: its mixer takes the job's pattern, or its own is dense.
  bool may_be_dense() const;
  /// One mixer for each layer, or one for all where they are equal.
  void repeat_mixers();
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// The sizes that a layer's mixer sees.
struct LayerConfig {
  ModelConfig model;
  MixerConfig mixer;
};

}  // namespace ratplus::model
