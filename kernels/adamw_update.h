// The factors of one AdamW update, computed once in float64: for every backend.
#pragma once

#include <cmath>

#include "kernels/operations.h"

namespace ratplus {

struct AdamWFactors {
  explicit AdamWFactors(const AdamW& update)
      : gradient(static_cast<float>(update.gradient_scale)),
        beta1(static_cast<float>(update.beta1)),
        one_minus_beta1(static_cast<float>(1 - update.beta1)),
        beta2(static_cast<float>(update.beta2)),
        one_minus_beta2(static_cast<float>(1 - update.beta2)),
        decay(static_cast<float>(1 - update.lr * update.weight_decay)),
        eps(static_cast<float>(update.eps)) {
    const auto step = static_cast<double>(update.step);
    rate = static_cast<float>(update.lr / (1 - std::pow(update.beta1, step)));
    inverse_root_correction = static_cast<float>(1 / std::sqrt(1 - std::pow(update.beta2, step)));
  }

  float gradient, beta1, one_minus_beta1, beta2, one_minus_beta2, decay, eps;
  float rate;                     ///< lr / (1 - beta1^step)
  float inverse_root_correction;  ///< 1 / sqrt(1 - beta2^step)
};

}  // namespace ratplus
