#include "parallel/unit.h"

#include <algorithm>

namespace ratplus::parallel {

std::int64_t parameter_count(const std::vector<UnitLayout>& units) {
  std::int64_t count = 0;
  for (const auto& unit : units) {
    for (const auto& slot : unit.slots) count += slot.numel;
  }
  return count;
}

bool same_places(const UnitLayout& a, const UnitLayout& b) {
  return std::ranges::equal(a.slots, b.slots, [](const ParameterSlot& x, const ParameterSlot& y) {
    return x.offset == y.offset && x.numel == y.numel;
  });
}

std::int64_t unit_part_size(const UnitLayout& unit, int parts) {
  const std::int64_t blocks = (unit.numel + UnitLayout::alignment - 1) / UnitLayout::alignment;
  return (blocks + parts - 1) / parts * UnitLayout::alignment;
}

UnitRange unit_part(const UnitLayout& unit, int index, int parts) {
  const auto size = unit_part_size(unit, parts);
  return {std::min(index * size, unit.numel), std::min((index + 1) * size, unit.numel)};
}

}  // namespace ratplus::parallel
