#include "lib/report/quantity.h"

#include <doctest/doctest.h>

#include <limits>

#include "lib/report/format.h"

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
  CHECK(format_value(Unit::seconds, 0.25) == "250 ms");
  CHECK(format_value(Unit::seconds, 0.02234) == "22.3 ms");
  CHECK(format_value(Unit::seconds, 0.0007) == "0.70 ms");
  CHECK(format_value(Unit::seconds, 0.0000123) == "0.012 ms");
  CHECK(format_value(Unit::seconds, 0.9996) == "1.000 s");
  CHECK(format_value(Unit::seconds, 0) == "0 s");
  CHECK(format_value(Unit::whole, 3) == "3");
  CHECK(format_value(Unit::seconds, 61.23) == "61.2 s");
  CHECK(format_value(Unit::plain, 0.83123456) == "0.8312");
  CHECK(format_value(Unit::plain, std::numeric_limits<double>::quiet_NaN()) == "-");
}

TEST_CASE("labels of axes are round and short") {
  CHECK(labels(Unit::nats, 4.13, 6.1) == Labels{"4.0", "4.5", "5.0", "5.5", "6.0", "6.5"});
  CHECK(labels(Unit::bytes, 15e6, 68e6) == Labels{"0", "20 MiB", "40 MiB", "60 MiB", "80 MiB"});
  CHECK(labels(Unit::share, 0.1, 0.42) == Labels{"0", "10%", "20%", "30%", "40%", "50%"});
  CHECK(labels(Unit::count, 1000, 12'345) == Labels{"0", "5k", "10k", "15k"});
  CHECK(labels(Unit::factor, 0, 8e-4) == Labels{"0", "2e-4", "4e-4", "6e-4", "8e-4"});
  CHECK(labels(Unit::factor, 0, 8e-6) == Labels{"0", "2e-6", "4e-6", "6e-6", "8e-6"});
  CHECK(labels(Unit::factor, 0, 2e-3) ==
        Labels{"0", "0.5e-3", "1.0e-3", "1.5e-3", "2.0e-3"});  // one power for all
  CHECK(labels(Unit::factor, 0, 0.2) == Labels{"0", "0.05", "0.10", "0.15", "0.20"});
  CHECK(labels(Unit::seconds, 0, 8e-4) == Labels{"0", "0.2 ms", "0.4 ms", "0.6 ms", "0.8 ms"});
  CHECK(labels(Unit::seconds, 0, 8) == Labels{"0", "2 s", "4 s", "6 s", "8 s"});
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

TEST_CASE("what is counted has whole ticks, and quantities that are all zero have short ones") {
  CHECK(labels(Unit::whole, 0, 0) == Labels{"0", "1"});
  CHECK(labels(Unit::whole, 0, 2) == Labels{"0", "1", "2"});
  CHECK(labels(Unit::whole, 3, 3) == Labels{"2", "3", "4"});
  CHECK(labels(Unit::whole, 0, 40) == Labels{"0", "10", "20", "30", "40"});
  CHECK(labels(Unit::count, 0, 2) == Labels{"0", "1", "2"});
  CHECK(labels(Unit::share, 0, 0).back() == "1.0%");
  CHECK(labels(Unit::seconds, 0, 0).back() == "1.0 ms");
  CHECK(labels(Unit::bytes, 0, 0).back() == "1.0 KiB");
  CHECK(token_labels(make_axis(0, 2, 5, 1)) == Labels{"0", "1", "2"});
}

TEST_CASE("no value that is not 0 is written as 0") {
  CHECK(format_fixed(0, 1) == "0.0");
  CHECK(format_fixed(-0.0, 1) == "0.0");
  CHECK(format_fixed(12.34, 1) == "12.3");
  CHECK(format_fixed(0.05, 1) == "0.1");
  CHECK(format_fixed(0.0123, 1) == "0.012");
  CHECK(format_fixed(0.4, 0) == "0.4");
  CHECK(format_fixed(-0.004, 1) == "-0.004");
  CHECK(format_value(Unit::share, 0) == "0.0%");
  CHECK(format_value(Unit::share, 1e-5) == "<0.1%");
  CHECK(format_value(Unit::nats, 0.0000123) == "1.2e-05");
  CHECK(format_bytes(1024 * 1024 - 1) == "1.0 MiB");  // not "1024.0 KiB"
  CHECK(format_seconds(std::numeric_limits<double>::quiet_NaN()) == "-");
  CHECK(format_seconds(59.4) == "59 s");
  CHECK(format_seconds(7500) == "2 h 05 min");
  CHECK(format_seconds(86399.4) == "23 h 59 min");
  CHECK(format_seconds(86399.6) == "1 d 0 h");
  CHECK(format_seconds(2 * 86400 + 3 * 3600 + 3599) == "2 d 3 h");
  CHECK(format_interval(0) == "0 ns");
  CHECK(format_interval(8.7e-7) == "870 ns");
  CHECK(format_interval(9.996e-7) == "1.00 us");
  CHECK(format_interval(1.234e-5) == "12.3 us");
  CHECK(format_interval(4.564e-3) == "4.56 ms");
  CHECK(format_interval(123.4) == "123 s");
  CHECK(format_rate(20, "B/s") == "20.0 B/s");
  CHECK(format_rate(0.0123, "B/s") == "0.01 B/s");
  CHECK(format_rate(0, "B/s") == "0 B/s");
  CHECK(format_rate(999.6, "B/s") == "1.00 kB/s");
  CHECK(format_rate(12'345'678'901, "FLOP/s") == "12.3 GFLOP/s");
  CHECK(format_rate(720e12, "FLOP/s") == "720 TFLOP/s");
  CHECK(format_rate(std::numeric_limits<double>::infinity(), "B/s") == "-");
}

}  // namespace ratplus::report
