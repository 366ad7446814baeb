#include "lib/report/history.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/median.h"

namespace ratplus::report {

void History::add(std::int64_t step, double value) {
  const auto x = static_cast<double>(step);
  drop_from(x);
  last_ = value;
  if (!std::isfinite(value)) {
    ++not_finite_;
    return;
  }
  const Point point{x, value};
  const Stretch one{point, point, point, point, x, value, 1};
  if (!stretches_.empty() && stretches_.back().count < points_a_stretch_) {
    stretches_.back() = joined(stretches_.back(), one);
    return;
  }
  if (stretches_.size() >= most_) halve();
  stretches_.push_back(one);
}

History::Stretch History::joined(const Stretch& a, const Stretch& b) {
  return {a.first,
          b.last,
          b.low.y < a.low.y ? b.low : a.low,
          b.high.y > a.high.y ? b.high : a.high,
          a.sum_x + b.sum_x,
          a.sum_y + b.sum_y,
          a.count + b.count};
}

/// A stretch that lies on both sides stays as its mean between its first point and what is known of the others.
void History::drop_from(double step) {
  while (!stretches_.empty() && stretches_.back().first.x >= step) stretches_.pop_back();
  if (stretches_.empty() || stretches_.back().last.x < step) return;
  Stretch& cut = stretches_.back();
  cut.last = cut.first;
  if (cut.low.x >= step) cut.low = cut.high.x < step ? cut.high : cut.first;
  if (cut.high.x >= step) cut.high = cut.low;
  cut.sum_x = cut.first.x * static_cast<double>(cut.count);
}

/// Half as many stretches, each of twice as many points.
void History::halve() {
  std::vector<Stretch> half;
  for (std::size_t i = 0; i < stretches_.size(); i += 2) {
    half.push_back(i + 1 < stretches_.size() ? joined(stretches_[i], stretches_[i + 1]) : stretches_[i]);
  }
  stretches_ = std::move(half);
  points_a_stretch_ *= 2;
}

Curve History::extremes() const {
  Curve curve;
  for (const Stretch& stretch : stretches_) {
    const bool low_first = stretch.low.x <= stretch.high.x;
    curve.push_back(low_first ? stretch.low : stretch.high);
    if (!(stretch.low == stretch.high)) curve.push_back(low_first ? stretch.high : stretch.low);
  }
  return curve;
}

Curve History::means() const {
  Curve curve;
  for (const Stretch& stretch : stretches_) curve.push_back(stretch.mean());
  return curve;
}

double History::median(std::size_t count) const {
  std::vector<double> values;
  const std::size_t begin = stretches_.size() - std::min(count, stretches_.size());
  for (std::size_t i = begin; i < stretches_.size(); ++i) values.push_back(stretches_[i].mean().y);
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  return ratplus::median(std::move(values));
}

}  // namespace ratplus::report
