// The median of measured times.
#pragma once

#include <algorithm>
#include <vector>

namespace ratplus {

/// The upper one of the two in the middle where their number is even; there is at least one.
inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace ratplus
