// Sharding: what each rank keeps of parameters, gradients and optimizer state; Settings: that, and how it travels.
#pragma once

#include "kernels/tensor.h"

namespace ratplus::parallel {

/// none: every rank keeps all. optimizer: the optimizer's state is cut over the ranks of a group. full: parameters,
/// gradients and optimizer state are, and a unit's parameters are gathered when it needs them.
enum class Sharding { none, optimizer, full };

constexpr const char* to_string(Sharding sharding) {
  switch (sharding) {
    case Sharding::none:
      return "none";
    case Sharding::optimizer:
      return "optimizer";
    case Sharding::full:
      return "full";
  }
  return "?";
}

/// Values of Settings::shard_group beside a number of ranks.
inline constexpr int all_ranks = 0;
inline constexpr int ranks_of_a_node = -1;

/// The use of ranks by a job.
struct Settings {
  Sharding shard = Sharding::none;
  int shard_group = ranks_of_a_node;  ///< ranks that a copy of the model is cut over
  int prefetch = 1;                   ///< full: units on their way while one is computed with
  bool keep_weights = false;          ///< full: gathered weights stay until they change
  DType reduce = DType::f32;          ///< in which gradients are summed over ranks: f32 or bf16
  double timeout = 600;               ///< seconds that a rank may wait for others

  friend bool operator==(const Settings&, const Settings&) = default;
};

}  // namespace ratplus::parallel
