// Parts of a projection: which columns of in_proj u hold queries, keys, values, gates.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"
#include "lib/model/shapes.h"

namespace ratplus::model {

/// Columns [begin, begin + width) of a projection [N, columns].
struct ProjectionPart {
  std::int64_t begin = 0;
  std::int64_t width = 0;

  std::int64_t end() const { return begin + width; }
  /// [N, width], strided.
  Tensor rows_of(const Tensor& projection) const { return projection.slice(1, begin, end()); }
  /// [B, T, width / P, P], strided.
  Tensor heads_of(const Tensor& projection, const PassShapes& shapes, std::int64_t head_dim) const {
    return projection.view({shapes.batch, shapes.tokens, projection.size(1) / head_dim, head_dim})
        .slice(2, begin / head_dim, end() / head_dim);
  }
};

/// Rows [N, heads P] without gaps as heads [B, T, heads, P].
inline Tensor as_heads(const Tensor& rows, const PassShapes& shapes, std::int64_t head_dim) {
  return rows.view({shapes.batch, shapes.tokens, rows.size(1) / head_dim, head_dim});
}

}  // namespace ratplus::model
