#include "lib/report/quantity.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "lib/report/format.h"

namespace ratplus::report {
namespace {

struct Scale {
  double factor = 1;
  const char* suffix = "";
};

/// Thousands, millions or billions.
Scale scale_of_count(double most) {
  if (most >= 2e12) return {1e12, "T"};
  if (most >= 2e9) return {1e9, "B"};
  if (most >= 2e6) return {1e6, "M"};
  if (most >= 2e3) return {1e3, "k"};
  return {};
}

Scale scale_of_bytes(double most) {
  if (most >= 0x1p40) return {0x1p40, " TiB"};
  if (most >= 0x1p30) return {0x1p30, " GiB"};
  if (most >= 0x1p20) return {0x1p20, " MiB"};
  return {0x1p10, " KiB"};
}

/// Seconds, or below one milliseconds.
Scale scale_of_seconds(double most) {
  if (most >= 1) return {1, " s"};
  return {1e-3, " ms"};
}

std::vector<std::string> scaled_labels(Axis axis, const Scale& scale) {
  for (double& tick : axis.ticks) tick /= scale.factor;
  axis.low /= scale.factor;
  axis.high /= scale.factor;
  auto labels = tick_labels(axis);
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = axis.ticks[i] == 0 ? "0" : labels[i] + scale.suffix;
  return labels;
}

/// With one power of ten for all: "0", "0.5e-3", "1.0e-3"; from a hundredth on without one.
std::vector<std::string> factor_labels(const Axis& axis) {
  const double most = std::max(std::abs(axis.low), std::abs(axis.high));
  if (!(most > 0) || most >= 0.01) return scaled_labels(axis, {});
  const int power = static_cast<int>(std::floor(std::log10(most) + 1e-9));
  const auto suffix = fmt::format("e{}", power);
  return scaled_labels(axis, {std::pow(10.0, power), suffix.c_str()});
}

/// "2e-5" rather than "2e-05".
std::string shortest(double value) {
  std::string text = fmt::format("{:.3g}", value);
  const auto exponent = text.find("e-0");
  if (exponent != std::string::npos) text.erase(exponent + 2, 1);
  return text;
}

}  // namespace

const char* to_string(Unit unit) {
  switch (unit) {
    case Unit::nats:
      return "nats";
    case Unit::factor:
      return "factor";
    case Unit::count:
      return "count";
    case Unit::share:
      return "share";
    case Unit::bytes:
      return "bytes";
    case Unit::seconds:
      return "seconds";
    case Unit::whole:
      return "whole";
    case Unit::plain:
      return "plain";
  }
  return "";
}

std::string format_value(Unit unit, double value) {
  if (!std::isfinite(value)) return "-";
  switch (unit) {
    case Unit::nats:
      return format_fixed(value, 4);
    case Unit::factor:
      return fmt::format("{:.2e}", value);
    case Unit::count:
      return format_count(value);
    case Unit::share:
      return value > 0 && value < 0.0005 ? "<0.1%" : fmt::format("{:.1f}%", 100 * value);
    case Unit::bytes:
      return format_bytes(static_cast<std::int64_t>(value));
    case Unit::seconds:
      return format_duration(value);
    case Unit::whole:
      return fmt::format("{:.0f}", value);
    case Unit::plain:
      return fmt::format("{:.4g}", value);
  }
  return "";
}

namespace {

/// Where all values are 0: an end that has short labels.
double end_above_zero(Unit unit) {
  switch (unit) {
    case Unit::share:
      return 0.01;
    case Unit::bytes:
      return 0x1p10;
    case Unit::seconds:
    case Unit::factor:
      return 1e-3;
    default:
      return 1;
  }
}

/// What is counted has no halves.
double least_step(Unit unit) {
  return unit == Unit::whole || unit == Unit::count ? 1 : 0;
}

}  // namespace

Axis make_value_axis(Unit unit, double low, double high) {
  const double size = std::max(std::abs(low), std::abs(high));
  if (high - low < 2e-3 * size) {
    low -= 0.05 * size;
    high += 0.05 * size;
  }
  if (unit != Unit::nats && low > 0 && low < 0.4 * high) low = 0;
  if (unit == Unit::whole && low >= 0) low = std::floor(low);
  if (size == 0) high = end_above_zero(unit);
  if (unit != Unit::bytes) return make_round_axis(low, high, 5, least_step(unit));
  const double factor = scale_of_bytes(high).factor;
  Axis axis = make_round_axis(low / factor, high / factor, 5);
  axis.low *= factor;
  axis.high *= factor;
  for (double& tick : axis.ticks) tick *= factor;
  return axis;
}

std::vector<std::string> token_labels(const Axis& axis) {
  return scaled_labels(axis, scale_of_count(axis.high));
}

std::vector<std::string> value_labels(Unit unit, const Axis& axis) {
  if (axis.logarithmic) {
    std::vector<std::string> labels;
    for (const double tick : axis.ticks) labels.push_back(shortest(tick));
    return labels;
  }
  if (unit == Unit::factor) return factor_labels(axis);
  if (unit == Unit::count) return scaled_labels(axis, scale_of_count(axis.high));
  if (unit == Unit::bytes) return scaled_labels(axis, scale_of_bytes(axis.high));
  if (unit == Unit::share) return scaled_labels(axis, {0.01, "%"});
  if (unit == Unit::seconds) return scaled_labels(axis, scale_of_seconds(axis.high));
  return tick_labels(axis);
}

}  // namespace ratplus::report
