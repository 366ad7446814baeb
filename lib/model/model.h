// Model: a RAT+ language model's forward and backward over one micro-batch (docs/model.md, section 1).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/model/block.h"
#include "lib/model/loss_head.h"
#include "lib/model/pattern_plan.h"
#include "lib/model/root.h"
#include "parallel/parameter_store.h"

namespace ratplus::model {

/// Holds activations and the order of the layers; the parameters are the store's. Does not know about ranks.
class Model {
 public:
  /// The store's units are unit_layouts(config).
  Model(const ModelConfig& config, const PassShapes& shapes, parallel::Use use, Ops& ops,
        parallel::ParameterStore& store, Arena& arena);

  /// Fills what is constant; once, after the arena's commit.
  void prepare();

  /// Adds the losses over the rows with a label to the loss. inputs, labels: host i32 [B, T]; labels < 0 are left
  /// out; tokens and labels are below the vocabulary's size. hits, if not empty: host i32 [B, T], 1 where the label is
  /// the token of the largest logit, else 0 (Ops::hits); the call waits for them.
  void forward(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels,
               const PatternPlan& plan, std::span<std::int32_t> hits = {});
  /// The same, and adds the gradient of scale times the sum of these losses to the store's gradients.
  void forward_backward(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels,
                        const PatternPlan& plan, double scale);
  /// The loss of each position of the last pass, 0 where it has no label: host f32 [B, T]. Waits for the pass.
  void losses(std::span<float> out);
  /// The sum of the losses of all passes since the last call. Waits for them; the passes themselves do not wait.
  double take_loss();
  /// Logits [N, V] into a tensor of the compute type.
  void logits(std::span<const std::int32_t> inputs, const PatternPlan& plan, Tensor out);

  const PassShapes& shapes() const { return shapes_; }

 private:
  RootParameters root_weights();
  std::size_t gates_unit() const { return static_cast<std::size_t>(config_.layers) + 1; }
  Block& block(std::int64_t layer);
  void upload(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels);
  void prefetch(std::int64_t layer, int direction);
  Tensor run_blocks(const PatternPlan& plan);
  void back_through_blocks(const PatternPlan& plan);

  ModelConfig config_;
  PassShapes shapes_;
  bool training_;
  Ops& ops_;
  parallel::ParameterStore& store_;
  Tensor inputs_;    ///< i32 [N]
  Tensor labels_;    ///< i32 [N]
  Tensor embedded_;  ///< f32 [N, d]
  Tensor loss_;      ///< f64 [1]
  Workspace work_;
  Gates gates_;
  std::vector<Block> blocks_;  ///< one a layer; or a single one, where a layer's activations are not kept
  std::vector<Tensor> block_inputs_;  ///< f32 [N, d] a layer, where Recompute is block
  LossHead head_;
};

}  // namespace ratplus::model
