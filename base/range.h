// Ranges of numbers: the values that a key of a job file, or a stored size, may have.
#pragma once

#include <cstdint>
#include <limits>

namespace ratplus {

/// No restriction beyond the type.
struct Any {};

/// low <= x <= high.
struct IntegerRange {
  std::int64_t low = 0;
  std::int64_t high = std::numeric_limits<std::int64_t>::max();

  bool contains(std::int64_t x) const { return low <= x && x <= high; }
};

/// Between low and high, each included or not. An infinite bound that is not included means: finite.
struct RealRange {
  double low = 0;
  bool with_low = true;
  double high = std::numeric_limits<double>::infinity();
  bool with_high = false;

  bool contains(double x) const {
    return (with_low ? low <= x : low < x) && (with_high ? x <= high : x < high);
  }
};

inline constexpr RealRange positive_range{0, false, std::numeric_limits<double>::infinity(), false};

}  // namespace ratplus
