#include "lib/plan/modelled_time.h"

#include <algorithm>
#include <limits>

namespace ratplus::plan {

/// What is launched later begins after this computation, so all that can slow it down is known.
void ModelledTime::compute(double seconds) {
  constexpr double least_pace = 0.1;
  for (double left = seconds; left > 0;) {
    std::erase_if(under_way_, [&](const Collective& c) { return c.end <= now_; });
    double load = 0;
    double change = std::numeric_limits<double>::infinity();
    for (const auto& c : under_way_) {
      if (c.begin <= now_) load += c.load;
      change = std::min(change, c.begin <= now_ ? c.end : c.begin);
    }
    const double pace = std::max(1 - load, least_pace);
    const double to_change = change - now_;
    const double taken = std::min(left / pace, to_change);
    slowed_ += taken * (1 - pace);
    if (left / pace <= to_change) {
      now_ += taken;
      return;
    }
    left -= taken * pace;
    now_ = change;
  }
}

void ModelledTime::wait(double until) {
  if (until <= now_) return;
  stalled_ += until - now_;
  now_ = until;
}

double ModelledTime::launch(Stream& stream, double seconds, double load, double not_before) {
  const double begin = std::max({stream, now_, not_before});
  stream = begin + seconds;
  under_way_.push_back({begin, stream, load});
  return stream;
}

}  // namespace ratplus::plan
