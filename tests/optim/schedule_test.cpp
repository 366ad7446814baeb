#include "lib/optim/schedule.h"

#include <doctest/doctest.h>

#include <cmath>

using ratplus::optim::Decay;
using ratplus::optim::learning_rate;
using ratplus::optim::Schedule;
using ratplus::optim::Shape;

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

TEST_CASE("a constant schedule stays at its peak") {
  const Schedule schedule{.steps = 40, .peak = 3e-4, .warmup = 0.1, .shape = Shape::constant};
  CHECK(learning_rate(schedule, 0) == doctest::Approx(3e-4 / 4));
  for (int n = 4; n < 40; ++n) CHECK(learning_rate(schedule, n) == 3e-4);
}

TEST_CASE("warm-up, stable, decay: the peak until the last share of the steps, then down to the floor") {
  Schedule schedule{
      .steps = 100, .peak = 1.0, .floor = 0.2, .warmup = 0.1, .shape = Shape::wsd, .decay = 0.2};
  CHECK(learning_rate(schedule, 4) == doctest::Approx(0.5));
  for (int n = 10; n <= 80; ++n) CHECK(learning_rate(schedule, n) == 1.0);
  CHECK(learning_rate(schedule, 85) == doctest::Approx(0.2 + 0.8 * 0.75));
  schedule.decay_shape = Decay::sqrt;
  CHECK(learning_rate(schedule, 85) == doctest::Approx(0.2 + 0.8 * 0.5));
  schedule.decay_shape = Decay::cosine;
  CHECK(learning_rate(schedule, 90) == doctest::Approx(0.2 + 0.8 * 0.5));
  schedule.decay = 1;  // nothing is stable
  schedule.decay_shape = Decay::linear;
  CHECK(learning_rate(schedule, 10) == 1.0);
  CHECK(learning_rate(schedule, 55) == doctest::Approx(0.2 + 0.8 * 0.5));
  schedule.decay = 0;
  for (int n = 10; n < 100; ++n) CHECK(learning_rate(schedule, n) == 1.0);
}

TEST_CASE("shares of the steps are floored in float64, as the reference's are") {
  const Schedule schedule{.steps = 100, .peak = 1.0, .warmup = 0.29};
  CHECK(learning_rate(schedule, 27) == 1.0);
  CHECK(learning_rate(schedule, 27 - 1) == doctest::Approx(27.0 / 28));
}
