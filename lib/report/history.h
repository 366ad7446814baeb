// History: one measured quantity over the steps of a run, in bounded memory however long the run is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "lib/report/curve.h"

namespace ratplus::report {

/// Up to `most` points are kept as they are. Beyond that, neighbours are taken together in stretches, each with its
/// lowest and highest point, its mean and its ends; stretches grow with the run, so that there are never more.
class History {
 public:
  explicit History(std::size_t most = 4096) : most_(most) {}

  /// A step that does not come after the last one is done again, by a resumed run: what was from there on is dropped
  /// first (of a stretch of several points: what is known to be). A value that is not finite is only counted, and
  /// shows as last().
  void add(std::int64_t step, double value);

  /// No finite value.
  bool empty() const { return stretches_.empty(); }
  /// Steps and values: all of them, or the lowest and the highest of each stretch.
  Curve extremes() const;
  /// All of them, or the mean of each stretch at its mean step.
  Curve means() const;
  /// The last value added, finite or not; NaN where there is none.
  double last() const { return last_; }
  std::int64_t not_finite() const { return not_finite_; }
  /// The middle one of the stretches' means, or of the last `count` of them; NaN where there is none.
  double median(std::size_t count = static_cast<std::size_t>(-1)) const;

 private:
  struct Stretch {
    Point first, last, low, high;
    double sum_x = 0, sum_y = 0;
    std::int64_t count = 0;

    Point mean() const { return {sum_x / static_cast<double>(count), sum_y / static_cast<double>(count)}; }
  };
  static Stretch joined(const Stretch& a, const Stretch& b);
  void drop_from(double step);
  void halve();

  std::size_t most_;
  std::int64_t points_a_stretch_ = 1;
  std::vector<Stretch> stretches_;
  double last_ = std::numeric_limits<double>::quiet_NaN();
  std::int64_t not_finite_ = 0;
};

}  // namespace ratplus::report
