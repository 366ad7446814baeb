// Rows of heads as the kernels of the recurrence address them.
#pragma once

#include "kernels/operations.h"

namespace ratplus::cpu {

/// One head's channels in [B, T, H, P].
inline float* at(const Tensor& tensor, std::int64_t b, std::int64_t t, std::int64_t h) {
  return tensor.as<float>() + b * tensor.stride(0) + t * tensor.stride(1) + h * tensor.stride(2);
}

/// The k~ or v~ of one head in a carried state [B, 2, H, P].
enum StatePart { state_k, state_v };
inline float* at(const Tensor& state, std::int64_t b, StatePart part, std::int64_t h) {
  return state.as<float>() + b * state.stride(0) + part * state.stride(1) + h * state.stride(2);
}

/// Floats of one thread's states: [2, H, P], P zeros, in whole cache lines.
inline std::int64_t recurrence_state_floats(std::int64_t heads, std::int64_t head_dim) {
  return ((2 * heads + 1) * head_dim + 15) / 16 * 16;
}

/// The recurrence of keys and values, or of values alone, for any form of the call; queries are left alone. scratch:
/// recurrence_state_floats a thread.
void recurrence_in_chunks(const operation::RecurrenceForward& call, float* scratch, int threads);
void recurrence_in_chunks(const operation::RecurrenceBackward& call, float* scratch, int threads);

/// out [B, T, H, P] = RoPE of x, from a position on.
void rotate_heads(const Tensor& out, const Tensor& x, const Tensor& rope, std::int64_t first_position,
                  int threads);
/// Its gradient: out [B, T, G, P] = x [B, T, H, P] turned back, summed over the heads h with h mod G equal.
void rotate_heads_back(const Tensor& out, const Tensor& x, const Tensor& rope, std::int64_t first_position,
                       int threads);

}  // namespace ratplus::cpu
