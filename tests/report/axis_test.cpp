#include "lib/report/axis.h"

#include <doctest/doctest.h>

namespace ratplus::report {

TEST_CASE("ticks are round numbers within the range") {
  const Axis axis = make_axis(0, 2'457'600, 8);
  CHECK(axis.high == 2'457'600);
  CHECK(axis.ticks == std::vector<double>{0, 500'000, 1'000'000, 1'500'000, 2'000'000});
  CHECK(make_axis(0, 1, 5).ticks.back() == doctest::Approx(1));
  CHECK(make_axis(0, 1, 5).ticks.size() == 6);
}

TEST_CASE("a round axis ends at ticks") {
  const Axis axis = make_round_axis(4.13, 8.31, 7);
  CHECK(axis.low == doctest::Approx(4));
  CHECK(axis.high == doctest::Approx(9));
  CHECK(tick_labels(axis) == std::vector<std::string>{"4", "5", "6", "7", "8", "9"});
}

TEST_CASE("both ends of a round axis are ticks, however the values lie") {
  for (const double high : {6.135, 5.2, 5.16, 6.9, 11.0, 1e6}) {
    const Axis axis = make_round_axis(5.15, high, 5);
    CHECK(axis.ticks.front() == doctest::Approx(axis.low));
    CHECK(axis.ticks.back() == doctest::Approx(axis.high));
    CHECK(axis.low <= 5.15);
    CHECK(axis.high >= high);
    CHECK(axis.ticks.size() <= 7);
  }
}

TEST_CASE("a logarithmic axis has powers of ten, some six at most") {
  const Axis axis = make_log_axis(0.3, 45);
  CHECK(tick_labels(make_axis(0, 1, 2)).size() == 3);
  CHECK(axis.ticks == std::vector<double>{0.1, 1, 10, 100});
  CHECK(axis.position(1) == doctest::Approx(1.0 / 3));
  CHECK(make_log_axis(1e-20, 1e20).ticks.size() <= 7);
  CHECK(make_log_axis(1, 1).high == 10);
}

TEST_CASE("labels have the digits that the step needs") {
  CHECK(tick_labels(make_axis(4.2, 4.3, 5)) ==
        std::vector<std::string>{"4.20", "4.22", "4.24", "4.26", "4.28", "4.30"});
  CHECK(tick_labels(make_axis(0, 400, 4)) == std::vector<std::string>{"0", "100", "200", "300", "400"});
  CHECK(tick_labels(make_axis(-1e-12, 2, 4)).front() == "0.0");  // not "-0.0"
}

TEST_CASE("equal ends make an axis all the same") {
  const Axis axis = make_round_axis(3, 3, 5);
  CHECK(axis.low < 3);
  CHECK(axis.high > 3);
  CHECK(axis.position(3) == doctest::Approx(0.5).epsilon(0.2));
  CHECK(axis.ticks.size() >= 2);
}

}  // namespace ratplus::report
