#include "lib/optim/schedule.h"

#include <doctest/doctest.h>

#include <cmath>

using ratplus::optim::learning_rate;
using ratplus::optim::Schedule;

TEST_CASE("warm-up rises by equal steps to the peak") {
  const Schedule schedule{.steps = 100, .peak = 1e-3, .floor = 1e-6, .warmup = 0.05};
  for (int n = 0; n < 5; ++n) CHECK(learning_rate(schedule, n) == doctest::Approx((n + 1) / 5.0 * 1e-3));
}

TEST_CASE("the cosine begins at the peak, passes the middle, and ends just above the floor") {
  const Schedule schedule{.steps = 100, .peak = 1e-3, .floor = 1e-6, .warmup = 0.05};
  CHECK(learning_rate(schedule, 5) == doctest::Approx(1e-3));
  const Schedule even{.steps = 100, .peak = 1e-3, .floor = 1e-6, .warmup = 0};
  CHECK(learning_rate(even, 50) == doctest::Approx((1e-3 + 1e-6) / 2));
  CHECK(learning_rate(even, 99) > 1e-6);
  CHECK(learning_rate(even, 99) == doctest::Approx(1e-6 + (1e-3 - 1e-6) * (1 + std::cos(M_PI * 0.99)) / 2));
  for (int n = 6; n < 100; ++n) CHECK(learning_rate(schedule, n) < learning_rate(schedule, n - 1));
}

TEST_CASE("no warm-up, one step, and a warm-up of less than a step") {
  CHECK(learning_rate({.steps = 1, .peak = 2e-5, .floor = 1e-6, .warmup = 0}, 0) == doctest::Approx(2e-5));
  CHECK(learning_rate({.steps = 10, .peak = 2e-5, .floor = 1e-6, .warmup = 0.05}, 0) ==
        doctest::Approx(2e-5));
}
