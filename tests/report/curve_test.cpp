#include "lib/report/curve.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

namespace ratplus::report {
namespace {

template <typename F>
Curve sample(int points, F f) {
  Curve curve;
  for (int i = 0; i < points; ++i) curve.push_back({double(i), f(i)});
  return curve;
}

}  // namespace

TEST_CASE("smoothing averages both sides and does not lag") {
  const Curve line = sample(50, [](int i) { return 3.0 - 0.1 * i; });
  const Curve smoothed = smooth(line, 7);
  for (std::size_t i = 0; i < line.size() - 7; ++i) CHECK(smoothed[i].y == doctest::Approx(line[i].y));

  const Curve peak = smooth({{0, 5}, {1, 1}, {2, 9}, {3, 2}, {4, 6}}, 1);
  CHECK(peak == Curve{{0, 5}, {1, 5}, {2, 4}, {3, 17.0 / 3}, {4, 4}});
}

TEST_CASE("smoothing of no point, and with no radius") {
  CHECK(smooth({}, 3).empty());
  CHECK(smooth({{0, 1}, {1, 5}}, 0) == Curve{{0, 1}, {1, 5}});
}

TEST_CASE("thinning keeps order and extremes, and bounds the number") {
  const Curve noisy = sample(100'000, [](int i) { return std::sin(0.7 * i) + (i == 77'777 ? 40 : 0); });
  const Curve thinned = thin(noisy, 800);
  CHECK(thinned.size() <= 800);
  CHECK(thinned.size() > 700);
  CHECK(std::ranges::is_sorted(thinned, {}, &Point::x));
  CHECK(std::ranges::find(thinned, noisy[77'777]) != thinned.end());
  CHECK(std::ranges::min(thinned, {}, &Point::y).y == std::ranges::min(noisy, {}, &Point::y).y);
  CHECK(thin({{0, 1}, {1, 2}}, 800) == Curve{{0, 1}, {1, 2}});
}

}  // namespace ratplus::report
