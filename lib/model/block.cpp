#include "lib/model/block.h"

#include <fmt/format.h>

namespace ratplus::model {
namespace {

Mixer make_mixer(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
                 const Workspace& work) {
  return RatPlusMixer(arena, compute, config, shapes, work);
}

}  // namespace

Block::Block(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
             const Workspace& work)
    : config_(config),
      mixer_(make_mixer(arena, compute, config, shapes, work)),
      feed_forward_(arena, compute, config, shapes, work) {}

parallel::UnitLayout Block::layout(std::int64_t layer, const ModelConfig& config) {
  parallel::UnitLayout unit{.name = fmt::format("blocks.{}", layer), .resident = false, .slots = {}};
  const auto prefix = fmt::format("backbone.layers.{}.", layer);
  append_layout<RatPlusMixer::Parameters>(unit, prefix + "seq_layer.", config);
  append_layout<FeedForward::Parameters>(unit, prefix + "hidden_layer.", config);
  return unit;
}

void Block::forward(Ops& ops, const parallel::UnitLayout& unit, Tensor weights, Tensor x, Tensor delta,
                    HeadPatterns patterns, Workspace& work) {
  std::size_t next = 0;
  std::visit(
      [&](auto& mixer) {
        using Parameters = typename std::remove_reference_t<decltype(mixer)>::Parameters;
        mixer.forward(ops, bind<Parameters>(unit, weights, next, config_), x, delta, patterns, work);
        feed_forward_.forward(ops, bind<FeedForward::Parameters>(unit, weights, next, config_),
                              mixer.stream(), work);
      },
      mixer_);
}

void Block::keep_input_in(Tensor input) {
  std::visit([&](auto& mixer) { mixer.keep_stream_in(input); }, mixer_);
}

void Block::recompute(Ops& ops, const parallel::UnitLayout& unit, Tensor weights, HeadPatterns patterns,
                      Workspace& work) {
  std::size_t next = 0;
  std::visit(
      [&](auto& mixer) {
        using Parameters = typename std::remove_reference_t<decltype(mixer)>::Parameters;
        mixer.forward(ops, bind<Parameters>(unit, weights, next, config_), mixer.stream(), {}, patterns,
                      work);
        feed_forward_.activate(ops, bind<FeedForward::Parameters>(unit, weights, next, config_),
                               mixer.stream(), work);
      },
      mixer_);
}

void Block::backward(Ops& ops, const parallel::UnitLayout& unit, Tensor weights,
                     const parallel::ParameterStore::Gradient& gradient, HeadPatterns patterns,
                     Workspace& work) {
  std::visit(
      [&](auto& mixer) {
        using Parameters = typename std::remove_reference_t<decltype(mixer)>::Parameters;
        std::size_t next = 0;
        const auto mixer_weights = bind<Parameters>(unit, weights, next, config_);
        const auto feed_forward_weights = bind<FeedForward::Parameters>(unit, weights, next, config_);
        next = 0;
        const auto mixer_gradient = bind<Parameters>(unit, gradient.flat, next, config_);
        const auto feed_forward_gradient = bind<FeedForward::Parameters>(unit, gradient.flat, next, config_);
        feed_forward_.backward(ops, feed_forward_weights, feed_forward_gradient, gradient.fresh, work);
        mixer.backward(ops, mixer_weights, mixer_gradient, gradient.fresh, patterns, work);
      },
      mixer_);
}

}  // namespace ratplus::model
