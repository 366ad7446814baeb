// ModelConfig: the sizes and choices that define a model.
#pragma once

#include <cstdint>

namespace ratplus::model {

struct ModelConfig {
  std::int64_t layers = 24;
  std::int64_t width = 2048;    ///< d
  std::int64_t head_dim = 128;  ///< P; heads H = d / P
  std::int64_t vocab_size = 32000;
  bool recurrence = true;  ///< RAT+; false is the attention baseline (no gate)
  double rope_base = 10000;
  double norm_eps = 1e-6;
  double init_std = 0.02;

  std::int64_t heads() const { return width / head_dim; }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

}  // namespace ratplus::model
