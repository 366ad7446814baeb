// How a model's parameters lie in flat units. A layer's parameter struct lists its tensors once, in for_each;
// layouts, views, initial values, counts and checkpoints all derive from that list.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "lib/model/config.h"
#include "parallel/unit.h"

namespace ratplus::model {

using Shape = std::vector<std::int64_t>;

/// Appends the parameters of a struct P to a unit, under prefix + name. P::for_each(p, config, f) calls
/// f(name, tensor, shape, initial) for each; config is a ModelConfig, or a LayerConfig for a mixer.
template <typename P, typename Config>
void append_layout(parallel::UnitLayout& unit, const std::string& prefix, const Config& config) {
  P parameters;
  P::for_each(parameters, config, [&](const char* name, Tensor&, Shape shape, parallel::Initial initial) {
    unit.add(prefix + name, std::move(shape), initial);
  });
}

/// The bias of a mixer's gate: its tensor f32 [numel], b = log r with r ~ U(1, memory - 1) at first, so that its channels
/// remember 1 + r tokens. A parameter struct P that has one says so by P::gate_bias_of(p, config). The biases of all layers
/// lie in a unit of their own, which has full precision.
struct GateBias {
  Tensor* tensor;
  std::int64_t numel;
  std::int64_t memory;
};
template <typename P>
inline constexpr bool has_gate_bias = requires(P p, const LayerConfig& c) {
  P::gate_bias_of(p, c);
};

/// Views of a struct's parameters in a unit's flat memory, in the order of append_layout; `next` is the number of
/// its first parameter in the unit and is moved past its last.
template <typename P, typename Config>
P bind(const parallel::UnitLayout& unit, const Tensor& flat, std::size_t& next, const Config& config) {
  P parameters;
  P::for_each(parameters, config, [&](const char*, Tensor& tensor, const Shape& shape, parallel::Initial) {
    const auto& place = unit.slots[next++];
    const Tensor elements = flat.slice(0, place.offset, place.offset + place.numel);
    tensor = Tensor(elements.raw(), elements.dtype(), shape, elements.device());
  });
  return parameters;
}

/// The units of a model: "root" (embedding and final norm), then "blocks.0", "blocks.1", ..., and, where gates have biases,
/// "gates".
std::vector<parallel::UnitLayout> unit_layouts(const ModelConfig& config);
/// Whether the model has that last unit.
bool has_gates(const ModelConfig& config);
/// The unit of the biases of all gates, in the order of the layers.
parallel::UnitLayout gates_layout(const ModelConfig& config);
/// A layer's bias in this unit's flat memory; empty if it has none.
Tensor gate_bias_of(const ModelConfig& config, std::int64_t layer, const parallel::UnitLayout& gates,
                    const Tensor& flat);
/// Number of parameters, the gate's rows and norms included.
std::int64_t parameter_count(const ModelConfig& config);

/// Initial values of elements [first, first + out.size()) of a unit's flat memory (docs/model.md, section 11):
/// each slot as its Initial says, gaps 0. A function of (seed, parameter, element) alone.
void initial_values(const parallel::UnitLayout& unit, std::size_t unit_index, std::int64_t first,
                    std::span<float> out, const ModelConfig& config, std::uint64_t seed);

}  // namespace ratplus::model
