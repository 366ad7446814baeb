#include "lib/report/axis.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace ratplus::report {
namespace {

/// 1, 2 or 5 times a power of ten: the smallest that cuts `range` into at most `ticks` pieces.
double round_step(double range, int ticks) {
  const double least = range / std::max(ticks, 1);
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

/// An axis needs some length, whatever its data.
void widen(double& low, double& high) {
  if (high > low) return;
  const double half = std::max(std::abs(low) * 0.05, 0.05);
  low -= half;
  high += half;
}

Axis axis_of_step(double low, double high, double step) {
  Axis axis{low, high, {}, false};
  // The tolerance takes in an end that is a tick but for rounding.
  const auto first = static_cast<std::int64_t>(std::ceil(low / step - 1e-9));
  const auto last = static_cast<std::int64_t>(std::floor(high / step + 1e-9));
  for (std::int64_t i = first; i <= last; ++i) {
    axis.ticks.push_back(std::clamp(static_cast<double>(i) * step, low, high) + 0.0);  // + 0.0: no "-0"
  }
  return axis;
}

}  // namespace

Axis make_axis(double low, double high, int ticks, double least_step) {
  widen(low, high);
  return axis_of_step(low, high, std::max(round_step(high - low, ticks), least_step));
}

Axis make_round_axis(double low, double high, int ticks, double least_step) {
  widen(low, high);
  const double step = std::max(round_step(high - low, ticks), least_step);
  return axis_of_step(step * std::floor(low / step + 1e-9), step * std::ceil(high / step - 1e-9), step);
}

Axis make_log_axis(double low, double high) {
  const auto first = static_cast<int>(std::floor(std::log10(low) + 1e-9));
  const auto last = std::max(first + 1, static_cast<int>(std::ceil(std::log10(high) - 1e-9)));
  Axis axis{std::pow(10.0, first), std::pow(10.0, last), {}, true};
  const int every = (last - first + 5) / 6;  // some six labels, however many powers
  for (int power = first; power <= last; power += every) axis.ticks.push_back(std::pow(10.0, power));
  return axis;
}

std::vector<std::string> tick_labels(const Axis& axis) {
  const double step = axis.ticks.size() > 1 ? axis.ticks[1] - axis.ticks[0] : axis.high - axis.low;
  const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  std::vector<std::string> labels;
  for (const double tick : axis.ticks) labels.push_back(fmt::format("{:.{}f}", tick, digits));
  return labels;
}

}  // namespace ratplus::report
