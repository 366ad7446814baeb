#include "lib/model/parameters.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "lib/model/block.h"
#include "lib/model/mixers.h"
#include "lib/model/root.h"

namespace ratplus::model {

std::vector<parallel::UnitLayout> unit_layouts(const ModelConfig& config) {
  std::vector<parallel::UnitLayout> units;
  units.push_back(root_layout(config));
  for (std::int64_t layer = 0; layer < config.layers; ++layer) units.push_back(Block::layout(layer, config));
  if (has_gates(config)) units.push_back(gates_layout(config));
  return units;
}

namespace {

bool layer_has_gate_bias(const MixerConfig& mixer) {
  return with_mixer(mixer.kind,
                    []<typename M>(std::type_identity<M>) { return has_gate_bias<typename M::Parameters>; });
}

}  // namespace

bool has_gates(const ModelConfig& config) {
  return std::ranges::any_of(config.mixers, layer_has_gate_bias);
}

parallel::UnitLayout gates_layout(const ModelConfig& config) {
  parallel::UnitLayout unit{.name = "gates", .resident = true, .full_precision = true, .slots = {}};
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const LayerConfig here{config, config.mixer(layer)};
    with_mixer(here.mixer.kind, [&]<typename M>(std::type_identity<M>) {
      using P = typename M::Parameters;
      if constexpr (has_gate_bias<P>) {
        P parameters;
        const auto bias = P::gate_bias_of(parameters, here);
        unit.add(fmt::format("backbone.layers.{}.seq_layer.gate_bias", layer), {bias.numel},
                 parallel::Initial::log_uniform, 1, static_cast<double>(bias.memory - 1));
      }
    });
  }
  return unit;
}

Tensor gate_bias_of(const ModelConfig& config, std::int64_t layer, const parallel::UnitLayout& gates,
                    const Tensor& flat) {
  if (!layer_has_gate_bias(config.mixer(layer))) return {};
  std::size_t slot = 0;
  for (std::int64_t i = 0; i < layer; ++i) slot += layer_has_gate_bias(config.mixer(i)) ? 1 : 0;
  const auto& place = gates.slots[slot];
  return flat.slice(0, place.offset, place.offset + place.numel);
}

std::int64_t parameter_count(const ModelConfig& config) {
  return parallel::parameter_count(unit_layouts(config));
}

void initial_values(const parallel::UnitLayout& unit, std::size_t unit_index, std::int64_t first,
                    std::span<float> out, const ModelConfig& config, std::uint64_t seed) {
  const auto last = first + static_cast<std::int64_t>(out.size());
  std::fill(out.begin(), out.end(), 0.0F);
  for (std::size_t s = 0; s < unit.slots.size(); ++s) {
    const auto& slot = unit.slots[s];
    const auto begin = std::max(first, slot.offset);
    const auto end = std::min(last, slot.offset + slot.numel);
    if (begin >= end) continue;
    const auto part =
        out.subspan(static_cast<std::size_t>(begin - first), static_cast<std::size_t>(end - begin));
    if (slot.initial == parallel::Initial::one) {
      std::fill(part.begin(), part.end(), 1.0F);
      continue;
    }
    if (slot.initial == parallel::Initial::log_uniform) {
      std::vector<double> r(part.size());
      fill_uniform(r, slot.low, slot.high, seed, Purpose::initial_gates, static_cast<std::uint32_t>(s),
                   static_cast<std::uint64_t>(begin - slot.offset));
      std::ranges::transform(r, part.begin(), [](double x) { return static_cast<float>(std::log(x)); });
      continue;
    }
    require(unit.slots.size() < 256, "unit {} has {} parameters", unit.name, unit.slots.size());
    const auto stream = static_cast<std::uint32_t>(unit_index * 256 + s);
    fill_normal(part, static_cast<float>(config.init_std), seed, Purpose::initial_weights, stream,
                static_cast<std::uint64_t>(begin - slot.offset));
  }
}

}  // namespace ratplus::model
