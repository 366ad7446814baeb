#include "lib/model/block.h"

#include <fmt/core.h>

#include <algorithm>

namespace ratplus::model {
namespace {

std::vector<Mixer> make_mixers(Arena& arena, DType compute, const std::vector<LayerConfig>& kinds,
                               const PassShapes& shapes, const Workspace& work) {
  std::vector<Mixer> mixers;
  arena.overlay(kinds.size(), [&](std::size_t i) {
    with_mixer(kinds[i].mixer.kind, [&]<typename M>(std::type_identity<M>) {
      mixers.emplace_back(std::in_place_type<M>, arena, compute, kinds[i], shapes, work);
    });
  });
  return mixers;
}

std::vector<LayerConfig> with_model(const ModelConfig& config, const std::vector<MixerConfig>& mixers) {
  std::vector<LayerConfig> kinds;
  for (const auto& mixer : mixers) kinds.push_back({config, mixer});
  return kinds;
}

}  // namespace

Block::Block(Arena& arena, DType compute, const ModelConfig& config, const std::vector<MixerConfig>& mixers,
             const PassShapes& shapes, const Workspace& work)
    : config_(config),
      kinds_(with_model(config, mixers)),
      mixers_(make_mixers(arena, compute, kinds_, shapes, work)),
      feed_forward_(arena, compute, config, shapes, work) {}

parallel::UnitLayout Block::layout(std::int64_t layer, const ModelConfig& config) {
  parallel::UnitLayout unit{.name = fmt::format("blocks.{}", layer), .resident = false, .slots = {}};
  const auto prefix = fmt::format("backbone.layers.{}.", layer);
  const LayerConfig here{config, config.mixer(layer)};
  with_mixer(here.mixer.kind, [&]<typename M>(std::type_identity<M>) {
    append_layout<typename M::Parameters>(unit, prefix + "seq_layer.", here);
  });
  append_layout<FeedForward::Parameters>(unit, prefix + "hidden_layer.", config);
  return unit;
}

std::int64_t Block::wide_columns(const ModelConfig& config, const MixerConfig& mixer) {
  const auto of_mixer = with_mixer(mixer.kind, [&]<typename M>(std::type_identity<M>) {
    return M::wide_columns(LayerConfig{config, mixer});
  });
  return std::max(of_mixer, FeedForward::wide_columns(config));
}

std::size_t Block::kind_of(std::int64_t layer) const {
  const auto kind = std::ranges::find(kinds_, config_.mixer(layer), &LayerConfig::mixer);
  require(kind != kinds_.end(), "a block without the mixer of layer {}", layer);
  return static_cast<std::size_t>(kind - kinds_.begin());
}

/// A mixer's parameters, with the bias of its gate.
template <typename P>
P Block::bind_mixer(std::int64_t layer, const parallel::UnitLayout& unit, const Tensor& weights,
                    std::size_t& next, const Gates& gates, const Tensor& gate_values) const {
  const LayerConfig& here = kinds_[kind_of(layer)];
  P parameters = bind<P>(unit, weights, next, here);
  if constexpr (has_gate_bias<P>) {
    *P::gate_bias_of(parameters, here).tensor = gate_bias_of(config_, layer, *gates.unit, gate_values);
  }
  return parameters;
}

void Block::forward(Ops& ops, std::int64_t layer, const parallel::UnitLayout& unit, Tensor weights,
                    const Gates& gates, Tensor x, Tensor delta, HeadPatterns patterns, Workspace& work) {
  std::visit(
      [&]<typename M>(M& mixer) {
        std::size_t next = 0;
        mixer.forward(ops,
                      bind_mixer<typename M::Parameters>(layer, unit, weights, next, gates, gates.weights), x,
                      delta, patterns, work);
        feed_forward_.forward(ops, bind<FeedForward::Parameters>(unit, weights, next, config_),
                              mixer.stream(), work);
      },
      mixers_[kind_of(layer)]);
}

void Block::keep_input_in(Tensor input) {
  for (auto& any : mixers_) {
    std::visit([&](auto& mixer) { mixer.keep_stream_in(input); }, any);
  }
}

void Block::recompute(Ops& ops, std::int64_t layer, const parallel::UnitLayout& unit, Tensor weights,
                      const Gates& gates, HeadPatterns patterns, Workspace& work) {
  std::visit(
      [&]<typename M>(M& mixer) {
        std::size_t next = 0;
        mixer.forward(ops,
                      bind_mixer<typename M::Parameters>(layer, unit, weights, next, gates, gates.weights),
                      mixer.stream(), {}, patterns, work);
        feed_forward_.activate(ops, bind<FeedForward::Parameters>(unit, weights, next, config_),
                               mixer.stream(), work);
      },
      mixers_[kind_of(layer)]);
}

void Block::backward(Ops& ops, std::int64_t layer, const parallel::UnitLayout& unit, Tensor weights,
                     const Gates& gates, const parallel::ParameterStore::Gradient& gradient,
                     HeadPatterns patterns, Workspace& work) {
  std::visit(
      [&]<typename M>(M& mixer) {
        std::size_t next = 0;
        const auto mixer_weights =
            bind_mixer<typename M::Parameters>(layer, unit, weights, next, gates, gates.weights);
        const auto feed_forward_weights = bind<FeedForward::Parameters>(unit, weights, next, config_);
        next = 0;
        const auto mixer_gradient =
            bind_mixer<typename M::Parameters>(layer, unit, gradient.flat, next, gates, gates.gradient.flat);
        const auto feed_forward_gradient = bind<FeedForward::Parameters>(unit, gradient.flat, next, config_);
        feed_forward_.backward(ops, feed_forward_weights, feed_forward_gradient, gradient.fresh, work);
        mixer.backward(ops, mixer_weights, mixer_gradient, gradient.fresh, patterns, work);
      },
      mixers_[kind_of(layer)]);
}

}  // namespace ratplus::model
