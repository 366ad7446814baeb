// Curve: a series of points, and what makes a noisy one readable.
#pragma once

#include <cstddef>
#include <vector>

namespace ratplus::report {

struct Point {
  double x = 0;
  double y = 0;

  friend bool operator==(const Point&, const Point&) = default;
};

/// Points with ascending x.
using Curve = std::vector<Point>;

/// Centred moving average over 2 r + 1 points, without lag. Near the beginning, where a loss falls steeply, r
/// shrinks from `radius` to what both sides have, and the first point stays; near the end, where it is flat
/// and its noise would show, only the side that is missing is left out.
Curve smooth(const Curve& curve, std::size_t radius);

/// At most about `points` points that look the same: of each stretch its lowest and its highest.
Curve thin(const Curve& curve, std::size_t points);

}  // namespace ratplus::report
