// Rotary position embedding (RoPE: Su et al., "RoFormer", 2021) on the lanes of a warp: the rows of queries, keys, values
// and gates as kernels read and write them, and the rotation of a lane's channels.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/vector.cuh"

namespace ratplus::cuda::rotary {

constexpr int warps = 8, threads = 32 * warps;  // of a block

struct Sizes {
  int batch, tokens, heads, head_dim;
};

/// A tensor [B, T, H, P]: distances in elements, that of two tokens in bytes.
template <typename T>
struct HeadRows {
  T* data;
  std::int64_t batch, head;
  int token_bytes;
};

// --- lanes: RoPE pairs channels i and i + P/2 of a head, and a lane holds `pairs` neighbouring pairs -------------

/// The channels i .. i + pairs - 1, and those P/2 above, of one head of one sequence.
struct Lane {
  bool active;
  int batch, head, i;
};

/// Lane `threadIdx.x % 32` of a group of channels; groups of a sequence: ceil(H (P/2 / pairs) / 32).
template <int pairs>
__device__ __forceinline__ Lane lane_of_group(const Sizes& sizes, int group) {
  const int per_head = sizes.head_dim / 2 / pairs, per_sequence = sizes.heads * per_head;
  const int groups = (per_sequence + 31) / 32;
  const int index = group % groups * 32 + static_cast<int>(threadIdx.x % 32);
  if (index >= per_sequence) return {false, 0, 0, 0};
  return {true, group / groups, index / per_head, index % per_head * pairs};
}

/// One lane's rows of a tensor, by step. A row is reached by one multiplication and addition, so the distance is 32
/// bits: of bytes.
template <typename T>
struct LaneRows {
  __device__ __forceinline__ LaneRows(const HeadRows<T>& rows, const Lane& lane)
      : first(rows.data + (lane.batch * rows.batch + lane.head * rows.head + lane.i)),
        distance(rows.token_bytes) {}

  __device__ __forceinline__ T* operator[](int t) const {
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first) + static_cast<std::int64_t>(t) * distance);
  }

  T* first;
  int distance;
};

/// `pairs` neighbouring elements, held as the 32-bit words that memory holds: one register for two bf16, where the
/// compiler would give each a register of its own.
template <typename T, int pairs>
struct Words {
  static constexpr int bytes = pairs * sizeof(T), count = (bytes + 3) / 4;

  __device__ __forceinline__ void load(const T* from) {
    if constexpr (bytes == 2) {
      word[0] = *reinterpret_cast<const unsigned short*>(from);
    } else if constexpr (bytes == 4) {
      word[0] = *reinterpret_cast<const unsigned*>(from);
    } else {
      static_assert(bytes == 8);
      const uint2 both = *reinterpret_cast<const uint2*>(from);
      word[0] = both.x, word[1] = both.y;
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (unsigned& w : word) w = 0;
  }
  __device__ __forceinline__ float operator[](int j) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(word[j]);
    return __uint_as_float(j % 2 == 0 ? word[j / 2] << 16 : word[j / 2] & 0xffff0000u);
  }
  __device__ __forceinline__ void forget_derived() {
#pragma unroll
    for (unsigned& w : word) asm volatile("" : "+r"(w));
  }

  unsigned word[count];
};

/// Elements of a lane at one step: [pairs] lower, then [pairs] upper.
template <typename T, int pairs>
struct Pairs {
  __device__ __forceinline__ float operator[](int j) const { return j < pairs ? low[j] : high[j - pairs]; }
  /// Tells the compiler that the elements may have changed, so that it does not keep what was computed from them
  /// before for use after: it is cheaper to compute again than to hold in registers.
  __device__ __forceinline__ void forget_derived() {
    low.forget_derived();
    high.forget_derived();
  }

  __device__ __forceinline__ void clear() {
    low.clear();
    high.clear();
  }

  Words<T, pairs> low, high;
};

template <int pairs, typename T>
__device__ __forceinline__ Pairs<std::remove_const_t<T>, pairs> load_pairs(T* from, int half) {
  Pairs<std::remove_const_t<T>, pairs> x;
  x.low.load(from);
  x.high.load(from + half);
  return x;
}

template <int pairs, typename T>
__device__ __forceinline__ void store_pairs(T* to, int half, const float (&x)[2 * pairs]) {
  Pack<T, pairs> low, high;
#pragma unroll
  for (int j = 0; j < pairs; ++j) {
    low.set(j, x[j]);
    high.set(j, x[pairs + j]);
  }
  store(to, low);
  store(to + half, high);
}

/// cos and sin of a lane's pairs at step t, of a table [T, 2, P/2].
template <int pairs>
struct Rotation {
  Rotation() = default;
  /// row: the table's at this step, from the lane's first pair on.
  __device__ __forceinline__ Rotation(const float* row, int half)
      : cos(load<pairs>(row)), sin(load<pairs>(row + half)) {}

  template <typename X>
  __device__ __forceinline__ void turn(float (&out)[2 * pairs], const X& x) const {
#pragma unroll
    for (int j = 0; j < pairs; ++j) {
      out[j] = x[j] * cos[j] - x[pairs + j] * sin[j];
      out[pairs + j] = x[pairs + j] * cos[j] + x[j] * sin[j];
    }
  }
  /// The inverse, which is the transpose: also what a gradient needs.
  template <typename X>
  __device__ __forceinline__ void turn_back(float (&out)[2 * pairs], const X& x) const {
#pragma unroll
    for (int j = 0; j < pairs; ++j) {
      out[j] = x[j] * cos[j] + x[pairs + j] * sin[j];
      out[pairs + j] = x[pairs + j] * cos[j] - x[j] * sin[j];
    }
  }

  Pack<float, pairs> cos, sin;
};

// --- host: rows of tensors, and the form of a kernel ----------------------------------------------------------------

/// Of any rows [B, T, H, P] of a call.
inline Sizes sizes_of(const Tensor& rows) {
  return {static_cast<int>(rows.size(0)), static_cast<int>(rows.size(1)), static_cast<int>(rows.size(2)),
          static_cast<int>(rows.size(3))};
}

inline int byte_distance(std::int64_t stride, std::int64_t element) {
  require(stride <= std::numeric_limits<int>::max() / element,
          "a token of a tensor of heads is {} elements from the next", stride);
  return static_cast<int>(stride * element);
}

template <typename T>
HeadRows<T> head_rows(const Tensor& tensor) {
  return {elements<T>(tensor), tensor.stride(0), tensor.stride(2),
          byte_distance(tensor.stride(1), sizeof(T))};
}

/// The table [.., 2, P/2], from a position on, as rows that all sequences and heads share: cos, P/2 later sin.
inline HeadRows<const float> rope_rows(const Tensor& rope, std::int64_t first_position) {
  return {rope.as<float>() + first_position * rope.stride(0), 0, 0,
          byte_distance(rope.stride(0), sizeof(float))};
}

/// Whether a lane can load two neighbouring elements at once from every row.
template <typename T>
bool in_twos(const HeadRows<T>& rows) {
  constexpr auto two = static_cast<int>(2 * sizeof(T));
  return reinterpret_cast<std::uintptr_t>(rows.data) % two == 0 && rows.batch % 2 == 0 &&
         rows.head % 2 == 0 && rows.token_bytes % two == 0;
}

template <typename... Rows>
bool all_in_twos(const Sizes& sizes, const Rows&... rows) {
  return sizes.head_dim % 4 == 0 && (in_twos(rows) && ...);
}

/// Calls f with the number of pairs of a lane, and the half of P if a kernel is compiled for it, as constants.
template <typename F>
void with_form(bool two, int head_dim, F&& f) {
  using std::integral_constant;
  if (!two) return f(integral_constant<int, 1>{}, integral_constant<int, 0>{});
  if (head_dim == 128) return f(integral_constant<int, 2>{}, integral_constant<int, 64>{});
  if (head_dim == 64) return f(integral_constant<int, 2>{}, integral_constant<int, 32>{});
  f(integral_constant<int, 2>{}, integral_constant<int, 0>{});
}

/// Groups of channels of all sequences.
inline std::int64_t groups_of(std::int64_t batch, std::int64_t heads, std::int64_t head_dim, int pairs) {
  return batch * blocks_of(heads * (head_dim / 2 / pairs), 32);
}

// --- without the recurrence: RoPE of q and k, and a copy of v (rotary.cu) ------------------------------------------

template <typename T>
struct Turn {
  HeadRows<const T> q, k, v;
  HeadRows<T> q_out, k_out, v_out;
  HeadRows<const float> rope;
  Sizes sizes;
  bool back;
  int groups;
};

/// Turns q and k, forward or (Turn::back) as their gradients, and copies v. T: float or bf16.
template <typename T>
void launch_turn(Turn<T> turn, cudaStream_t stream, const char* op);

}  // namespace ratplus::cuda::rotary
