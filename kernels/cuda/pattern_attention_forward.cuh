// What the forward kernels of pattern attention by tiles share: their argument.
#pragma once

#include <cmath>

#include "kernels/cuda/pattern_attention_tiles.cuh"

namespace ratplus::cuda::tiles {

template <typename T>
struct Forward {
  Forward(const operation::AttentionForward& call, const HeadGroup& heads_of_launch)
      : q(call.q, call.first_query),
        k(call.k),
        v(call.v),
        out(call.out, call.first_query),
        lse(call.lse.as<float>()),
        heads(static_cast<int>(call.out.size(2))),
        map(call.out, call.q, call.k),
        first(static_cast<int>(call.first_query)),
        queries(static_cast<int>(call.q.size(1))),
        p(static_cast<int>(call.q.size(3))),
        scale(1.0f / std::sqrt(static_cast<float>(p))),
        group(heads_of_launch) {}

  Rows<T> q, k, v, out;
  float* lse;  ///< [B, H, Tq]
  int heads;   ///< H
  HeadMap map;
  int first;    ///< position of the first query
  int queries;  ///< Tq
  int p;
  float scale;
  HeadGroup group;
};

}  // namespace ratplus::cuda::tiles
