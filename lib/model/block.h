// Block: one layer of the model, a mixer and a feed-forward layer; its parameters are one unit.
#pragma once

#include <vector>

#include "lib/model/feed_forward.h"
#include "lib/model/mixers.h"
#include "parallel/parameter_store.h"

namespace ratplus::model {

/// The weights of all gates' biases, and their gradient, to which layers add: flat f32; empty where the model has none.
struct Gates {
  const parallel::UnitLayout* unit = nullptr;
  Tensor weights = {};
  parallel::ParameterStore::Gradient gradient = {};
};

/// The activations of a layer, or of all layers in turn.
class Block {
 public:
  /// For layers with these mixers: of several, one is in use at a time, and their activations lie in one place.
  Block(Arena& arena, DType compute, const ModelConfig& config, const std::vector<MixerConfig>& mixers,
        const PassShapes& shapes, const Workspace& work);

  /// Names of the parameters begin with "backbone.layers.<layer>." (docs/model.md, section 2).
  static parallel::UnitLayout layout(std::int64_t layer, const ModelConfig& config);
  /// Columns of Workspace::wide that a layer with this mixer needs.
  static std::int64_t wide_columns(const ModelConfig& config, const MixerConfig& mixer);

  /// x + delta is the stream before (delta may be empty); after, it is stream() + work.delta.
  void forward(Ops& ops, std::int64_t layer, const parallel::UnitLayout& unit, Tensor weights,
               const Gates& gates, Tensor x, Tensor delta, HeadPatterns patterns, Workspace& work);
  /// work.dstream and dlayer: the gradient after the block on entry, before it on return.
  void backward(Ops& ops, std::int64_t layer, const parallel::UnitLayout& unit, Tensor weights,
                const Gates& gates, const parallel::ParameterStore::Gradient& gradient, HeadPatterns patterns,
                Workspace& work);

  /// Where Recompute is block: the block's input lies in `input` from now on, f32 [N, d], and recompute() makes
  /// again from it what a backward needs.
  void keep_input_in(Tensor input);
  void recompute(Ops& ops, std::int64_t layer, const parallel::UnitLayout& unit, Tensor weights,
                 const Gates& gates, HeadPatterns patterns, Workspace& work);

  Tensor stream() const { return feed_forward_.stream(); }

 private:
  std::size_t kind_of(std::int64_t layer) const;
  template <typename P>
  P bind_mixer(std::int64_t layer, const parallel::UnitLayout& unit, const Tensor& weights, std::size_t& next,
               const Gates& gates, const Tensor& gate_values) const;

  ModelConfig config_;
  std::vector<LayerConfig> kinds_;
  std::vector<Mixer> mixers_;  ///< one a kind
  FeedForward feed_forward_;
};

}  // namespace ratplus::model
