// Learning-rate schedule: linear warm-up, then cosine to a floor (spec 2).
#pragma once

#include <cstdint>

namespace ratplus::optim {

struct Schedule {
  std::int64_t steps = 1;  ///< N
  double peak = 8e-4;
  double floor = 1e-6;
  double warmup = 0.05;  ///< m, share of N
};

/// With M = floor(m N): (n + 1) / M peak for n < M, else
/// floor + (peak - floor) (1 + cos(pi (n - M) / (N - M))) / 2, at schedule step n in [0, N).
double learning_rate(const Schedule& schedule, std::int64_t n);

}  // namespace ratplus::optim
