#include "lib/model/model.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace ratplus::model {
namespace {

constexpr std::size_t root_unit = 0;
std::size_t block_unit(std::int64_t layer) {
  return static_cast<std::size_t>(layer) + 1;
}

/// Of the widest layer.
std::int64_t wide_columns(const ModelConfig& config) {
  std::int64_t columns = 0;
  for (const auto& mixer : config.distinct_mixers())
    columns = std::max(columns, Block::wide_columns(config, mixer));
  return columns;
}

/// Here, since a GPU's kernels cannot say which token it was.
void check_vocabulary(std::span<const std::int32_t> tokens, std::int32_t least, std::int64_t vocab_size) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= least && tokens[i] < vocab_size) continue;
    fail(
        "token {} at position {} of a micro-batch is outside the model's vocabulary of {}; its shard is "
        "damaged, or "
        "of another tokenizer: look at the dataset with `ratplus inspect`",
        tokens[i], i, vocab_size);
  }
}

}  // namespace

Model::Model(const ModelConfig& config, const PassShapes& shapes, parallel::Use use, Ops& ops,
             parallel::ParameterStore& store, Arena& arena)
    : config_(config),
      shapes_(shapes),
      training_(use == parallel::Use::training),
      ops_(ops),
      store_(store),
      inputs_((arena.category("activations"), arena.allocate(DType::i32, {shapes.rows()}))),
      labels_(arena.allocate(DType::i32, {shapes.rows()})),
      embedded_(arena.allocate(DType::f32, {shapes.rows(), config.width})),
      loss_(arena.allocate(DType::f64, {1})),
      work_(arena, ops.compute_type(), config, shapes, wide_columns(config), training_),
      head_(arena, ops.compute_type(), config, shapes) {
  if (!training_) shapes_.recompute = Recompute::none;
  const bool keeps_inputs = shapes_.recompute == Recompute::block;
  const std::int64_t kept = training_ && !keeps_inputs ? config.layers : 1;
  blocks_.reserve(static_cast<std::size_t>(kept));
  for (std::int64_t layer = 0; layer < kept; ++layer) {
    const bool own = kept == config.layers;
    const auto mixers = own ? std::vector{config.mixer(layer)} : config.distinct_mixers();
    blocks_.emplace_back(arena, ops.compute_type(), config, mixers, shapes_, work_);
  }
  for (std::int64_t layer = 0; keeps_inputs && layer < config.layers; ++layer) {
    block_inputs_.push_back(arena.allocate(DType::f32, {shapes.rows(), config.width}));
  }
}

void Model::prepare() {
  ops_.rope_table(work_.rope, config_.rope_base);
  for (const auto& rope : work_.chunk_ropes) ops_.rope_table(rope.table, config_.rope_base, rope.chunk);
}

Block& Model::block(std::int64_t layer) {
  if (blocks_.size() > 1) return blocks_[static_cast<std::size_t>(layer)];
  if (!block_inputs_.empty()) blocks_.front().keep_input_in(block_inputs_[static_cast<std::size_t>(layer)]);
  return blocks_.front();
}

RootParameters Model::root_weights() {
  std::size_t next = 0;
  return bind<RootParameters>(store_.units()[root_unit], store_.weights(root_unit), next, config_);
}

void Model::upload(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels) {
  const auto rows = static_cast<std::size_t>(shapes_.rows());
  require(inputs.size() == rows, "{} tokens for a model of {} rows", inputs.size(), rows);
  check_vocabulary(inputs, 0, config_.vocab_size);
  ops_.upload(inputs_, inputs.data());
  if (labels.empty()) return;
  require(labels.size() == rows, "{} labels for a model of {} rows", labels.size(), rows);
  check_vocabulary(labels, std::numeric_limits<std::int32_t>::min(), config_.vocab_size);
  ops_.upload(labels_, labels.data());
}

/// Starts to bring the weights of this layer and of those that come after it in this direction, as far ahead as the store
/// has room for.
void Model::prefetch(std::int64_t layer, int direction) {
  for (int ahead = 0; ahead < store_.prefetch_depth() && layer >= 0 && layer < config_.layers; ++ahead) {
    store_.prefetch(block_unit(layer));
    layer += direction;
  }
}

/// Embedding and all blocks; returns x of the stream x + work_.delta.
Tensor Model::run_blocks(const PatternPlan& plan) {
  prefetch(0, +1);
  if (has_gates(config_)) {
    gates_.unit = &store_.units()[gates_unit()];
    gates_.weights = store_.weights(gates_unit());
  }
  ops_.embedding_forward(embedded_, inputs_, root_weights().embedding);
  Tensor x = embedded_;
  Tensor delta;  // the first layer has nothing to add
  for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
    const auto unit = block_unit(layer);
    const auto weights = store_.weights(unit);
    prefetch(layer + 1, +1);
    Block& here = block(layer);
    here.forward(ops_, layer, store_.units()[unit], weights, gates_, x, delta, plan.layer(layer), work_);
    store_.release(unit);
    x = here.stream();
    delta = work_.delta;
  }
  return x;
}

void Model::back_through_blocks(const PatternPlan& plan) {
  for (std::int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    const auto unit = block_unit(layer);
    const auto weights = store_.weights(unit);
    prefetch(layer - 1, -1);
    Block& here = block(layer);
    if (shapes_.recompute == Recompute::block) {
      here.recompute(ops_, layer, store_.units()[unit], weights, gates_, plan.layer(layer), work_);
    }
    here.backward(ops_, layer, store_.units()[unit], weights, gates_, store_.gradient(unit),
                  plan.layer(layer), work_);
    store_.release(unit);
    store_.gradient_ready(unit);
  }
}

void Model::forward(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels,
                    const PatternPlan& plan, std::span<std::int32_t> hits) {
  require(hits.empty() || std::ssize(hits) == shapes_.rows(), "{} hits of {} rows", hits.size(),
          shapes_.rows());
  upload(inputs, labels);
  const auto x = run_blocks(plan);
  head_.forward(ops_, root_weights(), x, labels_, loss_, work_, !hits.empty());
  store_.release(root_unit);
  if (!hits.empty()) ops_.download(hits.data(), head_.hits());
}

void Model::forward_backward(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels,
                             const PatternPlan& plan, double scale) {
  require(training_, "backward of a model made for evaluation");
  upload(inputs, labels);
  const auto x = run_blocks(plan);
  std::size_t next = 0;
  const auto weights = root_weights();
  const auto room = store_.gradient(root_unit);
  const auto gradient = bind<RootParameters>(store_.units()[root_unit], room.flat, next, config_);
  head_.forward_backward(ops_, weights, gradient, room.fresh, x, labels_, scale, loss_, work_);
  if (has_gates(config_)) {
    gates_.gradient = store_.gradient(gates_unit());
    if (gates_.gradient.fresh)
      ops_.fill(gates_.gradient.flat, 0);  // its layers add, whenever theirs is fresh
  }
  back_through_blocks(plan);
  ops_.embedding_backward(gradient.embedding, work_.dstream, inputs_);
  store_.release(root_unit);
  store_.gradient_ready(root_unit);
  if (has_gates(config_)) store_.gradient_ready(gates_unit());
}

void Model::losses(std::span<float> out) {
  require(std::ssize(out) == shapes_.rows(), "{} losses of {} rows", out.size(), shapes_.rows());
  ops_.download(out.data(), head_.losses());
}

double Model::take_loss() {
  double loss = 0;
  ops_.download(&loss, loss_);
  ops_.fill(loss_, 0);
  return loss;
}

void Model::logits(std::span<const std::int32_t> inputs, const PatternPlan& plan, Tensor out) {
  upload(inputs, {});
  const auto x = run_blocks(plan);
  head_.logits(ops_, out, root_weights(), x, work_);
  store_.release(root_unit);
}

}  // namespace ratplus::model
