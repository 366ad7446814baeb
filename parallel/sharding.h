// Sharding: what each rank keeps of parameters, gradients and optimizer state.
#pragma once

#include <string_view>

namespace ratplus::parallel {

/// none: every rank keeps all. optimizer: the optimizer's state is cut over the ranks. full: parameters,
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

}  // namespace ratplus::parallel
