// The fields of ModelConfig, listed once: for job files, checkpoints, exported weights and their comparison.
#pragma once

#include <cstdint>
#include <limits>

#include "base/range.h"
#include "lib/model/config.h"

namespace ratplus::model {

/// The part of a model that a field bears on.
enum class FieldUse {
  weights,         ///< weights made with another value do not fit, or compute something else
  initial_weights  ///< trained weights do not depend on it any more
};

/// Calls visit(name, member, allowed, use) for every field, in the order of files: `member` is a pointer to the field,
/// `allowed` is Any, IntegerRange or RealRange.
template <typename Visit>
void for_each_member(Visit&& visit) {
  constexpr std::int64_t int_max = std::numeric_limits<std::int32_t>::max();
  visit("layers", &ModelConfig::layers, IntegerRange{1, 10'000}, FieldUse::weights);
  visit("width", &ModelConfig::width, IntegerRange{2, 1'000'000}, FieldUse::weights);
  visit("head_dim", &ModelConfig::head_dim, IntegerRange{2, 1'000'000}, FieldUse::weights);
  visit("kv_heads", &ModelConfig::kv_heads, IntegerRange{0, 1'000'000}, FieldUse::weights);
  visit("vocab_size", &ModelConfig::vocab_size, IntegerRange{2, int_max}, FieldUse::weights);
  visit("mixer", &ModelConfig::mixers, Any{}, FieldUse::weights);
  visit("rope_base", &ModelConfig::rope_base, positive_range, FieldUse::weights);
  visit("norm_eps", &ModelConfig::norm_eps, positive_range, FieldUse::weights);
  visit("init_std", &ModelConfig::init_std, RealRange{0, false, 1000, true}, FieldUse::initial_weights);
}

/// Calls visit(name, field, allowed) for every field of a ModelConfig or const ModelConfig.
template <typename Config, typename Visit>
void for_each_field(Config& config, Visit&& visit) {
  for_each_member([&](const char* name, auto member, const auto& allowed, FieldUse) {
    visit(name, config.*member, allowed);
  });
}

}  // namespace ratplus::model
