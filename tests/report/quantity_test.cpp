#include "lib/report/quantity.h"

#include <doctest/doctest.h>

#include <limits>

namespace ratplus::report {
namespace {

using Labels = std::vector<std::string>;

Labels labels(Unit unit, double low, double high) {
  return value_labels(unit, make_value_axis(unit, low, high));
}

}  // namespace

TEST_CASE("values in their units") {
  CHECK(format_value(Unit::nats, 4.02134) == "4.0213");
  CHECK(format_value(Unit::factor, 8e-4) == "8.00e-04");
  CHECK(format_value(Unit::count, 12'345) == "12.3k");
  CHECK(format_value(Unit::share, 0.4123) == "41.2%");
  CHECK(format_value(Unit::bytes, 71.5 * 0x1p30) == "71.5 GiB");
  CHECK(format_value(Unit::seconds, 0.25) == "0.250 s");
  CHECK(format_value(Unit::seconds, 61.23) == "61.2 s");
  CHECK(format_value(Unit::plain, 0.83123456) == "0.8312");
  CHECK(format_value(Unit::plain, std::numeric_limits<double>::quiet_NaN()) == "-");
}

TEST_CASE("labels of axes are round and short") {
  CHECK(labels(Unit::nats, 4.13, 6.1) == Labels{"4.0", "4.5", "5.0", "5.5", "6.0", "6.5"});
  CHECK(labels(Unit::bytes, 15e6, 68e6) == Labels{"0", "20 MiB", "40 MiB", "60 MiB", "80 MiB"});
  CHECK(labels(Unit::share, 0.1, 0.42) == Labels{"0", "10%", "20%", "30%", "40%", "50%"});
  CHECK(labels(Unit::count, 1000, 12'345) == Labels{"0", "5k", "10k", "15k"});
  CHECK(labels(Unit::factor, 0, 8e-4) == Labels{"0", "0.0002", "0.0004", "0.0006", "0.0008"});
  CHECK(labels(Unit::factor, 0, 8e-6) == Labels{"0", "2e-6", "4e-6", "6e-6", "8e-6"});
  CHECK(token_labels(make_axis(0, 2.65e9, 5)) == Labels{"0", "1B", "2B"});
}

TEST_CASE("values that hardly differ, or are all zero, have an axis all the same") {
  for (const double difference : {0.0, 1e-9, 1e-3}) {
    const Axis axis = make_value_axis(Unit::count, 6450, 6450 + difference);
    CHECK(axis.low < 6450);
    CHECK(axis.low > 5000);
    CHECK(axis.high < 8000);
    for (const auto& label : value_labels(Unit::count, axis)) CHECK(label.size() <= 5);
  }
  CHECK(make_value_axis(Unit::factor, 6.6e-4, 6.6e-4).high < 1e-3);
  CHECK(make_value_axis(Unit::share, 0, 0).low == 0);
}

}  // namespace ratplus::report
