// Axis: a range of values with round ticks.
#pragma once

#include <string>
#include <vector>

namespace ratplus::report {

struct Axis {
  double low = 0;
  double high = 1;
  std::vector<double> ticks;  ///< ascending multiples of 1, 2 or 5 times a power of ten, all in [low, high]

  /// 0 at low, 1 at high.
  double position(double value) const { return (value - low) / (high - low); }
};

/// From low to high (widened if they are equal), with about `ticks` ticks.
Axis make_axis(double low, double high, int ticks);
/// The same, its ends moved out to the next ticks.
Axis make_round_axis(double low, double high, int ticks);

/// The ticks' labels, all with the digits that the step between them needs.
std::vector<std::string> tick_labels(const Axis& axis);

}  // namespace ratplus::report
