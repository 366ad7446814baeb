// Floors of inference: the least time of a step and of a prompt, from operations and bytes alone (docs/performance.md).
#pragma once

#include <cstdint>

#include "lib/infer/caches.h"
#include "lib/model/config.h"

namespace ratplus::infer {

/// What a device reaches: of large products, and of large copies.
struct Rates {
  double products = 1;   ///< operations a second
  double bandwidth = 1;  ///< bytes a second
};

/// Of activations and caches, and of matrices.
struct Types {
  DType compute = DType::f32;
  DType weights = DType::f32;
};

/// Seconds.
struct Floor {
  double products = 0;   ///< the larger of the parameters' bytes and their products
  double attention = 0;  ///< the larger of the caches' bytes and attention's operations

  double seconds() const { return products + attention; }
};

/// One step of `batch` sequences, each with `tokens_before` tokens in its cache.
Floor step_floor(const model::ModelConfig& config, const CacheShape& shape, Types types, std::int64_t batch,
                 std::int64_t tokens_before, const Rates& rates);

/// A prompt of `tokens`, the head for its last token alone.
Floor prompt_floor(const model::ModelConfig& config, const CacheShape& shape, Types types,
                   std::int64_t tokens, const Rates& rates);

}  // namespace ratplus::infer
