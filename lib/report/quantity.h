// Measured quantities and how their values are written.
#pragma once

#include <string>

#include "lib/report/axis.h"

namespace ratplus::report {

enum class Unit {
  nats,     ///< a loss: "4.0213"
  factor,   ///< a learning rate: "8.00e-04"
  count,    ///< tokens a second: "12.3k"
  share,    ///< of 1, as a percentage: "41.2%"
  bytes,    ///< "14.6 GiB"
  seconds,  ///< "22.3 ms", "1.250 s"
  whole,    ///< what is counted one by one: "3"
  plain,    ///< "0.8312"
};
/// As pages name it for their script: "nats", "count", ...
const char* to_string(Unit unit);

/// "-" for what is not finite.
std::string format_value(Unit unit, double value);

/// A round axis of the unit's values, with about five ticks: bytes at round numbers of GiB. Where zero is near, it
/// belongs to the picture, but for a loss; values that differ by less than one could see are given some room.
Axis make_value_axis(Unit unit, double low, double high);
/// Tokens as the axes of charts have them: "0", "500k", "1.5M".
std::vector<std::string> token_labels(const Axis& axis);
/// The labels of an axis with values of this unit: short, all alike.
std::vector<std::string> value_labels(Unit unit, const Axis& axis);

}  // namespace ratplus::report
