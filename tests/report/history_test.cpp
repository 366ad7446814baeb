#include "lib/report/history.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

namespace ratplus::report {

TEST_CASE("a short history is kept as it is") {
  History history(8);
  const Curve points = {{1, 5}, {2, 3}, {5, 4}};
  for (const Point& point : points) history.add(static_cast<std::int64_t>(point.x), point.y);
  CHECK(history.extremes() == points);
  CHECK(history.means() == points);
  CHECK(history.median() == 4);
  CHECK(history.median(2) == 4);
  CHECK(history.median(1) == 4);
  CHECK(history.last() == 4);
}

TEST_CASE("a long one stays bounded, keeps its extremes, and its means are means") {
  History history(64);
  double sum = 0;
  constexpr int points = 100'000;
  for (int i = 1; i <= points; ++i) {
    const double value = std::sin(0.7 * i) + (i == 77'777 ? 40 : i == 3 ? -40 : 0);
    history.add(i, value);
    sum += value;
  }
  const Curve extremes = history.extremes();
  CHECK(extremes.size() <= 128);
  CHECK(extremes.size() > 60);
  CHECK(std::ranges::is_sorted(extremes, {}, &Point::x));
  CHECK(std::ranges::max(extremes, {}, &Point::y).x == 77'777);
  CHECK(std::ranges::min(extremes, {}, &Point::y).x == 3);
  const Curve means = history.means();
  CHECK(means.size() <= 64);
  double sum_of_means = 0;  // stretches are of 2048 points but the last
  for (std::size_t i = 0; i + 1 < means.size(); ++i) sum_of_means += means[i].y * 2048;
  const double rest = points - 2048.0 * static_cast<double>(means.size() - 1);
  CHECK(sum_of_means + rest * means.back().y == doctest::Approx(sum));
  CHECK(means.front().x == doctest::Approx(1024.5));
}

TEST_CASE("steps that are done again replace the ones that were lost") {
  History history(8);
  for (int step = 1; step <= 6; ++step) history.add(step, step);
  history.add(4, 40);
  CHECK(history.extremes() == Curve{{1, 1}, {2, 2}, {3, 3}, {4, 40}});

  History coarse(4);  // stretches of 4 points: 1 to 4, 5 to 8, 9 to 12
  for (int step = 1; step <= 12; ++step) coarse.add(step, step);
  coarse.add(7, 0);
  for (const Point& point : coarse.extremes()) CHECK(point.x <= 7);
  CHECK(std::ranges::is_sorted(coarse.extremes(), {}, &Point::x));
  CHECK(coarse.extremes().back().x == 7);
}

TEST_CASE("what is not finite is counted and shown, not drawn") {
  History history;
  history.add(1, 2);
  history.add(2, NAN);
  CHECK(history.extremes() == Curve{{1, 2}});
  CHECK(std::isnan(history.last()));
  CHECK(history.not_finite() == 1);
  CHECK(History().empty());
  CHECK(std::isnan(History().median()));
}

}  // namespace ratplus::report
