// Sharding: what each rank keeps of parameters, gradients and optimizer state; Settings: that, and how it travels.
#pragma once

#include <cstdint>

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

/// The type in which gradients travel and are summed over ranks. bf16_between_hosts: f32 within a host, bf16 between hosts.
enum class Reduce : std::uint8_t { f32, bf16, bf16_between_hosts };

constexpr const char* to_string(Reduce reduce) {
  switch (reduce) {
    case Reduce::bf16:
      return "bf16";
    case Reduce::bf16_between_hosts:
      return "bf16_between_hosts";
    case Reduce::f32:
      return "f32";
  }
  return "?";
}
constexpr DType type_within_hosts(Reduce reduce) {
  return reduce == Reduce::bf16 ? DType::bf16 : DType::f32;
}
constexpr DType type_between_hosts(Reduce reduce) {
  return reduce == Reduce::f32 ? DType::f32 : DType::bf16;
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
  Reduce reduce = Reduce::f32;        ///< in which gradients are summed over ranks
  double timeout = 600;               ///< seconds that a rank may wait for others

  friend bool operator==(const Settings&, const Settings&) = default;
};

}  // namespace ratplus::parallel
