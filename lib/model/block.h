// Block: one layer of the model, a mixer and a feed-forward layer; its parameters are one unit.
#pragma once

#include <variant>

#include "lib/model/feed_forward.h"
#include "lib/model/ratplus_mixer.h"
#include "parallel/parameter_store.h"

namespace ratplus::model {

/// The mixers a block can hold. A new one is a file with its parameters, forward and backward, and an entry here.
using Mixer = std::variant<RatPlusMixer>;

class Block {
 public:
  Block(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
        const Workspace& work);

  /// Names of the parameters begin with "backbone.layers.<layer>." (docs/model.md, section 2).
  static parallel::UnitLayout layout(std::int64_t layer, const ModelConfig& config);

  /// x + delta is the stream before (delta may be empty); after, it is stream() + work.delta.
  void forward(Ops& ops, const parallel::UnitLayout& unit, Tensor weights, Tensor x, Tensor delta,
               HeadPatterns patterns, Workspace& work);
  /// work.dstream and dlayer: the gradient after the block on entry, before it on return.
  void backward(Ops& ops, const parallel::UnitLayout& unit, Tensor weights,
                const parallel::ParameterStore::Gradient& gradient, HeadPatterns patterns, Workspace& work);

  /// Where Recompute is block: the block's input lies in `input` from now on, f32 [N, d], and recompute() makes
  /// again from it what a backward needs.
  void keep_input_in(Tensor input);
  void recompute(Ops& ops, const parallel::UnitLayout& unit, Tensor weights, HeadPatterns patterns,
                 Workspace& work);

  Tensor stream() const { return feed_forward_.stream(); }

 private:
  ModelConfig config_;
  Mixer mixer_;
  FeedForward feed_forward_;
};

}  // namespace ratplus::model
