// Optimizer: clipping by the global norm and AdamW, on this rank's part of the parameters
// (docs/model.md, section 12).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "parallel/parameter_store.h"
#include "parallel/watchdog.h"

namespace ratplus::optim {

struct OptimizerSettings {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  ///< on every parameter, norms and embedding too
  double clip = 1.0;          ///< largest global gradient norm
};

class Optimizer {
 public:
  Optimizer(const OptimizerSettings& settings, Ops& ops, parallel::Watchdog& watchdog,
            parallel::ParameterStore& store, Arena& arena);

  /// This rank's share of the squared norm of the store's summed gradients, for which it waits: the sum of the shares
  /// over all ranks is the square of the global norm.
  double squared_norm();
  /// One update with those gradients, whose global norm is `norm`, finite: clip by min(1, clip / (norm + 1e-6)), AdamW,
  /// publish.
  void update(double learning_rate, double norm);

  /// Updates made so far: Adam's own step count.
  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }
  /// First and second moments of store.owned(unit), f32.
  Tensor first_moment(std::size_t unit) const { return moments_[unit].first; }
  Tensor second_moment(std::size_t unit) const { return moments_[unit].second; }

 private:
  struct Moments {
    Tensor first;
    Tensor second;
  };

  OptimizerSettings settings_;
  Ops& ops_;
  parallel::Watchdog& watchdog_;
  parallel::ParameterStore& store_;
  std::vector<Moments> moments_;
  Tensor squares_;  ///< f64 [1]
  std::int64_t updates_ = 0;
};

}  // namespace ratplus::optim
