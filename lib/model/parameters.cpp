#include "lib/model/parameters.h"

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "lib/model/block.h"
#include "lib/model/root.h"

namespace ratplus::model {

std::vector<parallel::UnitLayout> unit_layouts(const ModelConfig& config) {
  std::vector<parallel::UnitLayout> units;
  units.push_back(root_layout(config));
  for (std::int64_t layer = 0; layer < config.layers; ++layer) units.push_back(Block::layout(layer, config));
  return units;
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
    require(unit.slots.size() < 256, "unit {} has {} parameters", unit.name, unit.slots.size());
    const auto stream = static_cast<std::uint32_t>(unit_index * 256 + s);
    fill_normal(part, static_cast<float>(config.init_std), seed, Purpose::initial_weights, stream,
                static_cast<std::uint64_t>(begin - slot.offset));
  }
}

}  // namespace ratplus::model
