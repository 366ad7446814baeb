#include "lib/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace ratplus::optim {

Optimizer::Optimizer(const OptimizerSettings& settings, Ops& ops, parallel::Watchdog& watchdog,
                     parallel::ParameterStore& store, Arena& arena)
    : settings_(settings), ops_(ops), watchdog_(watchdog), store_(store) {
  arena.category("optimizer");
  squares_ = arena.allocate(DType::f64, {1});
  for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
    const auto size = store.owned(unit).size();
    moments_.push_back({arena.allocate(DType::f32, {size}), arena.allocate(DType::f32, {size})});
  }
}

double Optimizer::squared_norm() {
  watchdog_.at("the optimizer's update");
  store_.finish_gradients();
  ops_.fill(squares_, 0);
  for (std::size_t unit = 0; unit < moments_.size(); ++unit) {
    ops_.add_sum_of_squares(squares_, store_.gradient_part(unit));
  }
  double squares = 0;
  ops_.download(&squares, squares_);
  return store_.counts() ? squares : 0.0;
}

void Optimizer::update(double learning_rate, double norm) {
  require(std::isfinite(norm), "an update from a gradient of norm {}", norm);
  const AdamW step{.lr = learning_rate,
                   .beta1 = settings_.beta1,
                   .beta2 = settings_.beta2,
                   .eps = settings_.eps,
                   .weight_decay = settings_.weight_decay,
                   .gradient_scale = std::min(1.0, settings_.clip / (norm + 1e-6)),
                   .step = ++updates_};
  for (std::size_t unit = 0; unit < moments_.size(); ++unit) {
    ops_.adamw(store_.master(unit), moments_[unit].first, moments_[unit].second, store_.weights_part(unit),
               store_.gradient_part(unit), step);
    store_.publish(unit);  // travels while the next ones are updated
  }
}

}  // namespace ratplus::optim
