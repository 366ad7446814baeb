// The root unit: the token embedding, which is also the head, and the final norm.
#pragma once

#include "lib/model/parameters.h"

namespace ratplus::model {

struct RootParameters {
  Tensor embedding;   ///< E [V, d]; logits = h E^T
  Tensor final_norm;  ///< [d]

  template <typename F>
  static void for_each(RootParameters& p, const ModelConfig& c, F f) {
    f("embedding.wte.weight", p.embedding, Shape{c.vocab_size, c.width}, parallel::Initial::normal);
    f("backbone.ln.weight", p.final_norm, Shape{c.width}, parallel::Initial::one);
  }
};

inline parallel::UnitLayout root_layout(const ModelConfig& config) {
  parallel::UnitLayout unit{.name = "root", .resident = true, .slots = {}};
  append_layout<RootParameters>(unit, "", config);
  return unit;
}

}  // namespace ratplus::model
