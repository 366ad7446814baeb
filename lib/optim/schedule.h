// Learning-rate schedule: linear warm-up, then a cosine to a floor, the peak kept, or the peak kept and let down at the
// end (docs/model.md, section 13).
#pragma once

#include <cstdint>

namespace ratplus::optim {

/// The learning rate after the warm-up. cosine: falls to the floor all along. constant: stays at the peak. wsd
/// (warm-up, stable, decay): stays at the peak, and falls to the floor over the last steps.
enum class Shape { cosine, constant, wsd };
/// How a wsd schedule falls, with p in [0, 1) through its decay: linear 1 - p, sqrt 1 - sqrt(p) (Hägele et al.,
/// arXiv 2405.18392), cosine (1 + cos(pi p)) / 2.
enum class Decay { linear, sqrt, cosine };
const char* to_string(Shape shape);
const char* to_string(Decay decay);

struct Schedule {
  std::int64_t steps = 1;  ///< N
  double peak = 8e-4;
  double floor = 1e-6;
  double warmup = 0.05;  ///< m, share of N
  Shape shape = Shape::cosine;
  double decay = 0.2;  ///< d, share of N in which wsd falls
  Decay decay_shape = Decay::linear;
};

/// M = floor(m N), the steps of warm-up.
std::int64_t warmup_steps(const Schedule& schedule);
/// The first step at which the learning rate is let down: M with cosine, N - D but not before M with wsd (see
/// learning_rate), N with constant.
std::int64_t decay_begin(const Schedule& schedule);

/// With M = floor(m N) steps of warm-up and f falling from 1 to 0: (n + 1) / M peak for n < M, else
/// floor + (peak - floor) f, at schedule step n in [0, N). cosine: f = (1 + cos(pi (n - M) / (N - M))) / 2. wsd: f = 1
/// before step N - D with D = floor(d N), but not before M, and from there the decay's. Both shares are floored as the
/// reference floors them, in float64: 0.29 of 100 steps are 28.
double learning_rate(const Schedule& schedule, std::int64_t n);

}  // namespace ratplus::optim
