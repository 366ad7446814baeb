#include "lib/infer/weights.h"

#include <algorithm>

#include "base/error.h"
#include "lib/model/feed_forward.h"
#include "lib/model/mixers.h"
#include "lib/model/root.h"

namespace ratplus::infer {
namespace {

/// Elements that are read at a time: 64 MiB in float32.
constexpr std::int64_t read_elements = std::int64_t{1} << 24;

DType type_of(const parallel::UnitLayout& unit, DType type) {
  return unit.full_precision ? DType::f32 : type;
}

LayerWeights bind_layer(const model::ModelConfig& config, std::int64_t layer,
                        const std::vector<parallel::UnitLayout>& units, const std::vector<Tensor>& flat) {
  const auto unit = static_cast<std::size_t>(layer) + 1;
  const model::LayerConfig here{config, config.mixer(layer)};
  LayerWeights result;
  std::size_t next = 0;
  model::with_mixer(here.mixer.kind, [&]<typename M>(std::type_identity<M>) {
    const auto p = model::bind<typename M::Parameters>(units[unit], flat[unit], next, here);
    result.input_norm = p.input_norm, result.in_proj = p.in_proj, result.out_proj = p.out_proj;
    if constexpr (model::has_gate_bias<typename M::Parameters>) {
      const auto bias = model::gate_bias_of(config, layer, units.back(), flat.back());
      result.gate_bias = bias.view({bias.numel() / config.head_dim, config.head_dim});
    }
  });
  const auto p = model::bind<model::FeedForward::Parameters>(units[unit], flat[unit], next, config);
  result.ln = p.ln, result.fc1 = p.fc1, result.fc2 = p.fc2;
  return result;
}

}  // namespace

Weights::Weights(const model::ModelConfig& config, Ops& ops, Arena& arena, DType type)
    : config_(config), ops_(ops), type_(type), units_(model::unit_layouts(config)) {
  const bool on_cpu = ops.device().kind == DeviceKind::cpu;
  require(type == ops.compute_type() || (on_cpu && type == DType::bf16), "weights in {} on {}",
          to_string(type), to_string(ops.device()));
  arena.category("weights");
  for (const auto& unit : units_) flat_.push_back(arena.allocate(type_of(unit, type), {unit.numel}));
  if (type != DType::f32 && !on_cpu) {
    std::int64_t largest = 0;
    for (const auto& unit : units_) largest = std::max(largest, unit.numel);
    staging_ = arena.allocate(DType::f32, {std::min(largest, read_elements)});
  }
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    auto bound = bind_layer(config_, layer, units_, flat_);
    for (Tensor* norm : {&bound.input_norm, &bound.ln}) *norm = norm_of(*norm, arena);
    layers_.push_back(bound);
  }
  std::size_t next = 0;
  const auto root = model::bind<model::RootParameters>(units_.front(), flat_.front(), next, config_);
  embedding_ = head_ = root.embedding, final_norm_ = norm_of(root.final_norm, arena);
  if (on_cpu) head_ = arena.allocate(type, {config.vocab_size, config.width});
}

Tensor Weights::norm_of(const Tensor& stored, Arena& arena) {
  if (stored.numel() == 0 || stored.dtype() == ops_.compute_type()) return stored;
  norms_.push_back({stored, arena.allocate(ops_.compute_type(), {stored.numel()})});
  return norms_.back().used;
}

void Weights::pack() {
  for (const auto& layer : layers_) {
    for (const auto& w : {layer.in_proj, layer.out_proj, layer.fc1, layer.fc2}) ops_.pack_weight(w);
  }
  if (head_.raw() != embedding_.raw()) ops_.copy(head_, embedding_);
  ops_.pack_weight(head_);
  for (const auto& norm : norms_) ops_.copy(norm.used, norm.stored);
}

std::int64_t Weights::bytes(const model::ModelConfig& config, DType type) {
  std::int64_t bytes = 0;
  for (const auto& unit : model::unit_layouts(config)) bytes += unit.numel * size_of(type_of(unit, type));
  return bytes;
}

template <typename Read>
void Weights::fill(Read read) {
  std::vector<float> values;
  for (std::size_t u = 0; u < units_.size(); ++u) {
    for (std::int64_t begin = 0; begin < units_[u].numel; begin += read_elements) {
      const auto end = std::min(begin + read_elements, units_[u].numel);
      const auto part = flat_[u].slice(0, begin, end);
      values.resize(static_cast<std::size_t>(end - begin));
      read(u, parallel::UnitRange{begin, end}, values.data());
      if (part.dtype() == DType::f32) {
        ops_.upload(part, values.data());
      } else if (staging_.empty()) {
        ops_.copy(part, Tensor(values.data(), DType::f32, {end - begin}, ops_.device()));
      } else {
        const auto staged = staging_.slice(0, 0, end - begin);
        ops_.upload(staged, values.data());
        ops_.copy(part, staged);
        ops_.synchronize();
      }
    }
  }
  pack();
}

void Weights::load(weights::WeightsSource& source) {
  require(std::ranges::equal(source.units(), units_, parallel::same_places), "weights of another model");
  source.expect_one_reading();
  fill([&](std::size_t unit, parallel::UnitRange range, float* out) {
    weights::read_finite(source, unit, range, out);
  });
}

void Weights::set_initial(std::uint64_t seed) {
  fill([&](std::size_t unit, parallel::UnitRange range, float* out) {
    model::initial_values(units_[unit], unit, range.begin,
                          {out, static_cast<std::size_t>(range.end - range.begin)}, config_, seed);
  });
}

}  // namespace ratplus::infer
