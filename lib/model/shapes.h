// PassShapes: the sizes of one micro-batch's pass through a model.
#pragma once

#include <cstdint>

#include "kernels/ops.h"
#include "lib/model/config.h"
#include "lib/model/recompute.h"

namespace ratplus::model {

struct PassShapes {
  std::int64_t batch = 1;   ///< B, sequences
  std::int64_t tokens = 1;  ///< T, tokens a sequence
  Recompute recompute = Recompute::none;

  std::int64_t rows() const { return batch * tokens; }  ///< N
  OpShapes ops(const ModelConfig& config) const {
    return {batch, tokens, config.heads(), config.head_dim, config.key_heads(), false, config.may_be_dense()};
  }
};

}  // namespace ratplus::model
