// UnitLayout: parameters that live, travel and are saved together, laid out one after another in flat memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ratplus::parallel {

/// How a parameter begins (docs/model.md, section 11).
enum class Initial : std::uint8_t {
  normal,      ///< N(0, init_std^2): matrices and the embedding
  one,         ///< 1: weights of norms
  log_uniform  ///< log r, r ~ U(low, high) of the slot: biases of gates
};

/// Where one parameter lies in its unit.
struct ParameterSlot {
  std::string name;                 ///< full name, "backbone.layers.0.seq_layer.in_proj.weight"
  std::vector<std::int64_t> shape;  ///< row-major
  std::int64_t offset = 0;          ///< first element in the unit
  std::int64_t numel = 0;
  Initial initial = Initial::normal;
  double low = 0, high = 0;  ///< of Initial::log_uniform
};

/// A unit is what is gathered and dropped at once: a block, or the embedding with the final norm.
struct UnitLayout {
  /// Parameters begin at multiples of this many elements: 64-byte loads, whatever the type.
  static constexpr std::int64_t alignment = 64;

  std::string name;  ///< "blocks.0", "root"
  /// Used all through a pass, so kept whole on every rank rather than gathered in turn.
  bool resident = false;
  /// Kept, computed with and sent in f32, whatever the compute type.
  bool full_precision = false;
  std::vector<ParameterSlot> slots;
  std::int64_t numel = 0;  ///< elements, gaps between parameters included

  void add(std::string parameter, std::vector<std::int64_t> shape, Initial initial = Initial::normal,
           double low = 0, double high = 0) {
    std::int64_t count = 1;
    for (const auto size : shape) count *= size;
    slots.push_back({std::move(parameter), std::move(shape), numel, count, initial, low, high});
    numel += (count + alignment - 1) / alignment * alignment;
  }
};

/// Whether parameters and gaps have the same places in both.
bool same_places(const UnitLayout& a, const UnitLayout& b);

/// Parameters in these units, without the gaps.
std::int64_t parameter_count(const std::vector<UnitLayout>& units);

/// Elements [begin, end) of a unit.
struct UnitRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};

/// The elements of a unit that part `index` of `parts` holds: equal parts, but for what the last ones lack.
UnitRange unit_part(const UnitLayout& unit, int index, int parts);
/// Elements of each of `parts` equal parts that together cover the unit, a multiple of the alignment.
std::int64_t unit_part_size(const UnitLayout& unit, int parts);

}  // namespace ratplus::parallel
