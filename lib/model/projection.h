// The projections of a mixer: their parameters, and the parts of in_proj u that hold queries, keys, values, gates.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"
#include "lib/model/parameters.h"
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

/// Lists the parameters that every mixer begins with, of width d and `columns` of in_proj: f as in append_layout.
template <typename Parameters, typename F>
void for_each_projection(Parameters& p, std::int64_t d, std::int64_t columns, F& f) {
  f("input_norm.weight", p.input_norm, Shape{d}, parallel::Initial::one);
  f("in_proj.weight", p.in_proj, Shape{columns, d}, parallel::Initial::normal);
  f("out_proj.weight", p.out_proj, Shape{d, d}, parallel::Initial::normal);
}

/// Rows [N, heads P] without gaps as heads [B, T, heads, P].
inline Tensor as_heads(const Tensor& rows, const PassShapes& shapes, std::int64_t head_dim) {
  return rows.view({shapes.batch, shapes.tokens, rows.size(1) / head_dim, head_dim});
}

}  // namespace ratplus::model
