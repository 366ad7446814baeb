#include "lib/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ratplus::optim {
namespace {

std::int64_t steps_of(double share, std::int64_t steps) {
  return static_cast<std::int64_t>(std::floor(share * static_cast<double>(steps)));
}

double cosine(double progress) {
  return (1 + std::cos(std::numbers::pi * progress)) / 2;
}

double fall(Decay decay, double progress) {
  switch (decay) {
    case Decay::linear:
      return 1 - progress;
    case Decay::sqrt:
      return 1 - std::sqrt(progress);
    case Decay::cosine:
      return cosine(progress);
  }
  return 1;
}

}  // namespace

const char* to_string(Shape shape) {
  if (shape == Shape::cosine) return "cosine";
  return shape == Shape::constant ? "constant" : "wsd";
}

const char* to_string(Decay decay) {
  if (decay == Decay::linear) return "linear";
  return decay == Decay::sqrt ? "sqrt" : "cosine";
}

std::int64_t warmup_steps(const Schedule& schedule) {
  return steps_of(schedule.warmup, schedule.steps);
}

std::int64_t decay_begin(const Schedule& schedule) {
  if (schedule.shape == Shape::constant) return schedule.steps;
  const auto warm = warmup_steps(schedule);
  if (schedule.shape == Shape::cosine) return warm;
  return std::max(warm, schedule.steps - steps_of(schedule.decay, schedule.steps));
}

double learning_rate(const Schedule& schedule, std::int64_t n) {
  const auto warm = warmup_steps(schedule);
  if (n < warm) return static_cast<double>(n + 1) / static_cast<double>(warm) * schedule.peak;
  const auto progress_from = [&](std::int64_t first) {
    return static_cast<double>(n - first) / static_cast<double>(schedule.steps - first);
  };
  if (schedule.shape == Shape::cosine) {
    return schedule.floor +
           (schedule.peak - schedule.floor) * (1 + std::cos(std::numbers::pi * progress_from(warm))) / 2;
  }
  const auto stable_until = decay_begin(schedule);
  if (schedule.shape == Shape::constant || n < stable_until) return schedule.peak;
  return schedule.floor +
         (schedule.peak - schedule.floor) * fall(schedule.decay_shape, progress_from(stable_until));
}

}  // namespace ratplus::optim
