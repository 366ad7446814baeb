#include "lib/optim/schedule.h"

#include <cmath>
#include <numbers>

namespace ratplus::optim {

double learning_rate(const Schedule& schedule, std::int64_t n) {
  const auto warm =
      static_cast<std::int64_t>(std::floor(schedule.warmup * static_cast<double>(schedule.steps)));
  if (n < warm) return static_cast<double>(n + 1) / static_cast<double>(warm) * schedule.peak;
  const double progress = static_cast<double>(n - warm) / static_cast<double>(schedule.steps - warm);
  return schedule.floor + (schedule.peak - schedule.floor) * (1 + std::cos(std::numbers::pi * progress)) / 2;
}

}  // namespace ratplus::optim
