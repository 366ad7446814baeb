// Rows of heads by themselves: the rotary embedding of one tensor, and sums over heads that share keys or queries.
#pragma once

#include "kernels/cuda/rotary.cuh"

namespace ratplus::cuda::rotary {

/// out = x [B, T, H, P] turned by position, or turned back. T: float or bf16.
template <typename T>
void launch_turn_one(HeadRows<const T> x, HeadRows<T> out, HeadRows<const float> rope, Sizes sizes, bool back,
                     cudaStream_t stream, const char* op);

/// Which heads share one: head g of the sum is that of heads g group_step + m member_step, m < members.
struct Sharing {
  int members, member_step, group_step;
};

/// out [B, T, G, P] = the sum, in f32 and in this order, over the heads of x that share; turned back by position where
/// rope has data. sizes: of out.
template <typename T>
void launch_sum_heads(HeadRows<const T> x, HeadRows<T> out, HeadRows<const float> rope, Sizes sizes,
                      Sharing sharing, cudaStream_t stream, const char* op);

}  // namespace ratplus::cuda::rotary
