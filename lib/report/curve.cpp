#include "lib/report/curve.h"

#include <algorithm>

namespace ratplus::report {

Curve smooth(const Curve& curve, std::size_t radius) {
  std::vector<double> sums(curve.size() + 1, 0.0);  // sums[i]: of the first i values
  for (std::size_t i = 0; i < curve.size(); ++i) sums[i + 1] = sums[i] + curve[i].y;
  Curve smoothed = curve;
  for (std::size_t i = 0; i < curve.size(); ++i) {
    const std::size_t before = std::min(radius, i);
    const std::size_t after = std::min(before, curve.size() - 1 - i);
    smoothed[i].y = (sums[i + after + 1] - sums[i - before]) / static_cast<double>(before + after + 1);
  }
  return smoothed;
}

Curve thin(const Curve& curve, std::size_t points) {
  if (curve.size() <= points || points < 4) return curve;
  const std::size_t stretches = points / 2;
  Curve thinned;
  for (std::size_t s = 0; s < stretches; ++s) {
    const auto begin = curve.begin() + static_cast<std::ptrdiff_t>(s * curve.size() / stretches);
    const auto end = curve.begin() + static_cast<std::ptrdiff_t>((s + 1) * curve.size() / stretches);
    const auto [low, high] = std::minmax_element(begin, end, [](auto a, auto b) { return a.y < b.y; });
    thinned.push_back(*std::min(low, high));
    if (low != high) thinned.push_back(*std::max(low, high));
  }
  return thinned;
}

}  // namespace ratplus::report
