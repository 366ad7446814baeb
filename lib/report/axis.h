// Axis: a range of values with round ticks.
#pragma once

#include <cmath>
#include <string>
#include <vector>

namespace ratplus::report {

struct Axis {
  double low = 0;
  double high = 1;
  std::vector<double> ticks;  ///< ascending multiples of 1, 2 or 5 times a power of ten, all in [low, high]
  bool logarithmic = false;

  /// 0 at low, 1 at high.
  double position(double value) const {
    return logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
  }
};

/// From low to high (widened if they are equal), with about `ticks` ticks, `least_step` apart or more: 1 for what is
/// counted.
Axis make_axis(double low, double high, int ticks, double least_step = 0);
/// The same, its ends moved out to the next ticks.
Axis make_round_axis(double low, double high, int ticks, double least_step = 0);

/// The same for values over several powers of ten, all above 0: equal lengths for equal ratios.
Axis make_log_axis(double low, double high);

/// The ticks' labels, all with the digits that the step between them needs.
std::vector<std::string> tick_labels(const Axis& axis);

}  // namespace ratplus::report
