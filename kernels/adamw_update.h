// What one AdamW update checks, and what it multiplies with, computed once in float64: for every backend.
#pragma once

#include <cmath>

#include "kernels/checks.h"
#include "kernels/ops.h"

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

/// Checks Ops::adamw's arguments; returns whether the new weights are to be written beside the master.
inline bool check_adamw(const Tensor& master, const Tensor& m, const Tensor& v, const Tensor& weights,
                        const Tensor& gradient, const AdamW& update, DeviceKind kind) {
  check_rank(master, kind, DType::f32, 1, "adamw", "master");
  const std::int64_t n = master.size(0);
  check_tensor(m, kind, DType::f32, {n}, "adamw", "m");
  check_tensor(v, kind, DType::f32, {n}, "adamw", "v");
  check_tensor(gradient, kind, DType::f32, {n}, "adamw", "gradient");
  const bool copies = weights && weights.raw() != master.raw();
  const auto type = weights.dtype() == DType::bf16 ? DType::bf16 : DType::f32;
  if (copies) check_tensor(weights, kind, type, {n}, "adamw", "weights");
  require(update.step >= 1, "adamw: step {} is not counted from 1", update.step);
  return copies;
}

}  // namespace ratplus
