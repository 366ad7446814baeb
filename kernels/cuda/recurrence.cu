// The gated recurrence on keys and values, and the rotary position embedding of queries and keys (spec 1.1), in
// one pass over the projection. RoPE: Su et al., "RoFormer", 2021.
//
// The scan in t is a single pass with look-back (Merrill and Garland, "Single-pass parallel prefix scan with
// decoupled look-back", 2016): a block takes one chunk of steps of a group of channels of one sequence. Each warp
// keeps its few steps packed in registers, and reduces them to the affine map (state before -> state after) =
// gate * before + state of each channel. The block composes its warps' maps, publishes the result, and later
// finds the state before its chunk: the nearest published state, carried through the maps published after it.
// Then every warp runs its steps again from the true state, still from registers. Thus every input is read once,
// every output written once.
//
// Same bits on every run: a state is always fma(gate, state, map's state) over all chunks from the first one on,
// in order, wherever a block picks it up. Chunks are handed out by a ticket, earlier ones first, so a block waits
// only for blocks that are already running.
//
// Floor: N d elements of 7 tensors forward (q, k, v, f; q_rot, k_rot, v_rec) and 12 backward (dq_rot, dk_rot,
// dv_rec, k, v, f, k_rot, v_rec; dq, dk, dv, df).
#include <algorithm>
#include <limits>
#include <type_traits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/vector.cuh"

namespace ratplus::cuda {
namespace {

// The parts of a projection [B, T, 5 or 4, H, P], in order.
enum Part { part_o, part_q, part_k, part_v, part_f };

constexpr int warps = 8, threads = 32 * warps;
// Steps of a warp: what its registers hold.
constexpr int forward_steps = 8, backward_steps = 4;

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

// --- the scan over chunks ----------------------------------------------------------------------------------------

/// What has been published of a chunk.
enum Published : unsigned { nothing = 0, its_map = 1, its_state = 2 };

/// In scratch. A map of a group's chunk is [gate, state of k, state of v, k after, v after], each [32 lanes, 2
/// pairs] f32; the last two are the true states after the chunk.
struct ScanMemory {
  unsigned* ticket;     ///< zero at first, as `published`
  unsigned* published;  ///< [groups, chunks]
  float* maps;          ///< [groups, chunks, 5, channels]
  int groups, chunks;
};

__device__ __forceinline__ void store_release(unsigned* to, unsigned value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ __forceinline__ unsigned load_acquire(const unsigned* from) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

/// The block's part in the scan. Calls in this order, by all threads: the constructor, put(), publish(),
/// look_back(), start().
template <int pairs>
class BlockScan {
 public:
  static constexpr int lane_channels = 2 * pairs, channels = 32 * lane_channels;

  struct Shared {
    alignas(16) float gate[warps][channels];         ///< product of the gates of a warp's steps
    alignas(16) float gate_before[warps][channels];  ///< and of all warps before it
    alignas(16) float state[2][warps][channels];     ///< from zero: after the warp's steps, then: before them
    alignas(16) float carry[2][channels];            ///< the true states of k and v before the chunk
    unsigned ticket;
    int nearest;
  };

  __device__ __forceinline__ BlockScan(const ScanMemory& memory, Shared& shared)
      : memory_(memory), shared_(shared) {
    if (threadIdx.x == 0) shared.ticket = atomicAdd(memory.ticket, 1u);
    __syncthreads();
    chunk_ = static_cast<int>(shared.ticket) / memory.groups;
    group_ = static_cast<int>(shared.ticket) % memory.groups;
  }

  __device__ __forceinline__ int chunk() const { return chunk_; }
  __device__ __forceinline__ int group() const { return group_; }

  /// The map of this warp's steps.
  __device__ __forceinline__ void put(const float (&gate)[lane_channels], const float (&k)[lane_channels],
                                      const float (&v)[lane_channels]) {
    const int warp = threadIdx.x / 32, c = threadIdx.x % 32 * lane_channels;
    Pack<float, lane_channels> gates, ks, vs;
#pragma unroll
    for (int j = 0; j < lane_channels; ++j) {
      gates.set(j, gate[j]);
      ks.set(j, k[j]);
      vs.set(j, v[j]);
    }
    store(&shared_.gate[warp][c], gates);
    store(&shared_.state[0][warp][c], ks);
    store(&shared_.state[1][warp][c], vs);
  }

  /// Composes the warps' maps, and shows the result to later chunks.
  __device__ __forceinline__ void publish() {
    __syncthreads();
    if (works()) {
      const int c = channel(), x = of_v();
      gate_ = 1.0f, state_ = 0.0f;
#pragma unroll
      for (int w = 0; w < warps; ++w) {
        const float gate = shared_.gate[w][c], state = shared_.state[x][w][c];
        shared_.state[x][w][c] = state_;
        if (x == 0) shared_.gate_before[w][c] = gate_;
        state_ = fmaf(gate, state_, state);
        gate_ *= gate;
      }
      if (!last()) {
        if (x == 0) map(chunk_)[c] = gate_;
        map(chunk_)[(1 + x) * channels + c] = state_;
      }
    }
    __syncthreads();
    if (threadIdx.x == 0 && !last()) store_release(published() + chunk_, its_map);
  }

  /// Finds the states before the chunk, and shows those after it.
  __device__ __forceinline__ void look_back() {
    if (threadIdx.x < 32) {
      const int nearest = wait_for_nearest_state();
      if (threadIdx.x == 0) shared_.nearest = nearest;
    }
    __syncthreads();
    if (works()) {
      const int c = channel(), x = of_v();
      const float before = state_before(shared_.nearest, c, x);
      shared_.carry[x][c] = before;
      if (!last()) map(chunk_)[(3 + x) * channels + c] = fmaf(gate_, before, state_);
    }
    __syncthreads();
    if (threadIdx.x == 0 && !last()) store_release(published() + chunk_, its_state);
  }

  /// The states before this warp's first step.
  __device__ __forceinline__ void start(float (&k)[lane_channels], float (&v)[lane_channels]) const {
    const int warp = threadIdx.x / 32, c = threadIdx.x % 32 * lane_channels;
    const auto gate = load<lane_channels>(&shared_.gate_before[warp][c]);
    const auto k_local = load<lane_channels>(&shared_.state[0][warp][c]);
    const auto v_local = load<lane_channels>(&shared_.state[1][warp][c]);
    const auto k_carry = load<lane_channels>(&shared_.carry[0][c]);
    const auto v_carry = load<lane_channels>(&shared_.carry[1][c]);
#pragma unroll
    for (int j = 0; j < lane_channels; ++j) {
      k[j] = fmaf(gate[j], k_carry[j], k_local[j]);
      v[j] = fmaf(gate[j], v_carry[j], v_local[j]);
    }
  }

 private:
  // For what is done once a channel: a thread for each of [k, v] x channels.
  __device__ __forceinline__ static bool works() {
    return threadIdx.x < 2 * channels;
  }
  __device__ __forceinline__ static int channel() {
    return threadIdx.x % channels;
  }
  __device__ __forceinline__ static int of_v() {
    return threadIdx.x / channels;
  }
  __device__ __forceinline__ bool last() const {
    return chunk_ == memory_.chunks - 1;
  }
  __device__ __forceinline__ unsigned* published() const {
    return memory_.published + static_cast<std::int64_t>(group_) * memory_.chunks;
  }
  __device__ __forceinline__ float* map(int chunk) const {
    return memory_.maps + (static_cast<std::int64_t>(group_) * memory_.chunks + chunk) * (5 * channels);
  }

  /// The latest earlier chunk whose state is published, as are the maps of all chunks between; -1: the zero state
  /// before the first chunk. By one warp, which looks at 32 chunks at once. A state comes into its sight at last,
  /// because each chunk publishes its own whether or not later ones wait.
  __device__ __forceinline__ int wait_for_nearest_state() const {
    const int seen = chunk_ - 1 - static_cast<int>(threadIdx.x);
    while (true) {
      const unsigned flag = seen < 0 ? its_state : load_acquire(published() + seen);
      const unsigned states = __ballot_sync(~0u, flag == its_state);
      const unsigned missing = __ballot_sync(~0u, flag == nothing);
      if (states != 0) {
        const int nearest = __ffs(static_cast<int>(states)) - 1;
        if ((missing & ((1u << nearest) - 1)) == 0) return chunk_ - 1 - nearest;
      }
      __nanosleep(32);
    }
  }

  /// __ldcg: past the L1 cache, which does not see what other processors write.
  __device__ __forceinline__ float state_before(int nearest, int c, int x) const {
    float state = nearest < 0 ? 0.0f : __ldcg(map(nearest) + (3 + x) * channels + c);
    constexpr int ahead = 4;
    for (int m = nearest + 1; m < chunk_; m += ahead) {
      float gates[ahead], states[ahead];
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        const bool there = m + u < chunk_;  // else the identity, to the sign of a zero
        gates[u] = there ? __ldcg(map(m + u) + c) : 1.0f;
        states[u] = there ? __ldcg(map(m + u) + (1 + x) * channels + c) : -0.0f;
      }
#pragma unroll
      for (int u = 0; u < ahead; ++u) state = fmaf(gates[u], state, states[u]);
    }
    return state;
  }

  const ScanMemory& memory_;
  Shared& shared_;
  int chunk_, group_;
  float gate_ = 1.0f, state_ = 0.0f;  ///< of this thread's channel: the chunk's map
};

// --- forward -----------------------------------------------------------------------------------------------------

// The kernels know P / 2 when they are compiled for it, else (fixed_half = 0) from the sizes: then the upper halves
// of the rows cost an addition each.
//
// Rows are read without a condition, at a step that exists. What a warp makes of steps past the end of the scan is
// used by nobody: it lies in the last chunk, after all true steps, and is not stored.

template <typename T>
struct Forward {
  HeadRows<const T> q, k, v, f;
  HeadRows<T> q_rot, k_rot, v_rec;
  HeadRows<const float> rope;
  Sizes sizes;
  ScanMemory scan;
};

template <typename T, int pairs, int fixed_half>
__global__ void __launch_bounds__(threads, sizeof(T) == 2 ? 2 : 1)
    forward_kernel(const __grid_constant__ Forward<T> a) {
  constexpr int steps = forward_steps, n = 2 * pairs;
  __shared__ typename BlockScan<pairs>::Shared shared;
  BlockScan<pairs> scan(a.scan, shared);
  const Lane lane = lane_of_group<pairs>(a.sizes, scan.group());
  const int half = fixed_half ? fixed_half : a.sizes.head_dim / 2;
  const int first = (scan.chunk() * warps + static_cast<int>(threadIdx.x) / 32) * steps;
  const int end = lane.active ? a.sizes.tokens : 0;
  const auto there = [&](int i) { return min(first + i, a.sizes.tokens - 1); };

  Pairs<T, pairs> q[steps], k[steps], v[steps], f[steps];
  {
    const LaneRows f_rows(a.f, lane), k_rows(a.k, lane), v_rows(a.v, lane), q_rows(a.q, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      f[i] = load_pairs<pairs>(f_rows[there(i)], half);
      k[i] = load_pairs<pairs>(k_rows[there(i)], half);
      v[i] = load_pairs<pairs>(v_rows[there(i)], half);
    }
#pragma unroll
    for (int i = 0; i < steps; ++i) q[i] = load_pairs<pairs>(q_rows[there(i)], half);
  }

  float gate[n], k_state[n], v_state[n];
#pragma unroll
  for (int j = 0; j < n; ++j) gate[j] = 1.0f, k_state[j] = 0.0f, v_state[j] = 0.0f;
#pragma unroll
  for (int i = 0; i < steps; ++i) {
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = sigmoid(f[i][j]);
      gate[j] *= g;
      k_state[j] = fmaf(g, k_state[j] - k[i][j], k[i][j]);  // g k~ + (1 - g) k
      v_state[j] = fmaf(g, v_state[j] - v[i][j], v[i][j]);
    }
  }
  scan.put(gate, k_state, v_state);
  // All at once, so that they are under way together; then kept for the keys.
  Rotation<pairs> rotation[steps];
  {
    const LaneRows rope(a.rope, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) rotation[i] = Rotation<pairs>(rope[there(i)], half);
  }
  scan.publish();

  // Queries wait for nobody: their turn is while other chunks publish.
  {
    const LaneRows q_rot(a.q_rot, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      const int t = first + i;
      if (t >= end) break;
      float turned[n];
      rotation[i].turn(turned, q[i]);
      store_pairs<pairs>(q_rot[t], half, turned);
    }
  }

  scan.look_back();
  scan.start(k_state, v_state);
  const LaneRows k_rot(a.k_rot, lane), v_rec(a.v_rec, lane);
#pragma unroll
  for (int i = 0; i < steps; ++i) f[i].forget_derived(), k[i].forget_derived(), v[i].forget_derived();
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int t = first + i;
    if (t >= end) break;
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = sigmoid(f[i][j]);
      k_state[j] = fmaf(g, k_state[j] - k[i][j], k[i][j]);
      v_state[j] = fmaf(g, v_state[j] - v[i][j], v[i][j]);
    }
    float turned[n];
    rotation[i].turn(turned, k_state);
    store_pairs<pairs>(k_rot[t], half, turned);
    store_pairs<pairs>(v_rec[t], half, v_state);
  }
}

// --- backward ----------------------------------------------------------------------------------------------------

template <typename T>
struct Backward {
  HeadRows<const T> dq_rot, dk_rot, dv_rec, k, v, f, k_rot, v_rec;
  HeadRows<T> dq, dk, dv, df;
  HeadRows<const float> rope;
  Sizes sizes;
  ScanMemory scan;
};

/// The scan runs from the last step to the first: with the incoming gradient e_t and the carry c_t = g_t s_t, s_t =
/// e_t + c_{t+1}. Steps and chunks are counted in that order: step i of a warp is t = last - i.
template <typename T, int pairs, int fixed_half>
__global__ void __launch_bounds__(threads, sizeof(T) == 2 ? 2 : 1)
    backward_kernel(const __grid_constant__ Backward<T> a) {
  constexpr int steps = backward_steps, n = 2 * pairs;
  __shared__ typename BlockScan<pairs>::Shared shared;
  BlockScan<pairs> scan(a.scan, shared);
  const Lane lane = lane_of_group<pairs>(a.sizes, scan.group());
  const int half = fixed_half ? fixed_half : a.sizes.head_dim / 2;
  const int last = a.sizes.tokens - 1 - (scan.chunk() * warps + static_cast<int>(threadIdx.x) / 32) * steps;
  const int begin = lane.active ? 0 : a.sizes.tokens;
  const auto there = [&](int i) { return max(last - i, 0); };

  Pairs<T, pairs> dq[steps], dk[steps], dv[steps], f[steps], k[steps], v[steps], k_before[steps],
      v_before[steps];
  {
    const LaneRows f_rows(a.f, lane), dk_rows(a.dk_rot, lane), dv_rows(a.dv_rec, lane),
        dq_rows(a.dq_rot, lane), k_rows(a.k, lane), v_rows(a.v, lane), k_rot_rows(a.k_rot, lane),
        v_rec_rows(a.v_rec, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      f[i] = load_pairs<pairs>(f_rows[there(i)], half);
      dk[i] = load_pairs<pairs>(dk_rows[there(i)], half);
      dv[i] = load_pairs<pairs>(dv_rows[there(i)], half);
    }
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      dq[i] = load_pairs<pairs>(dq_rows[there(i)], half);
      k[i] = load_pairs<pairs>(k_rows[there(i)], half);
      v[i] = load_pairs<pairs>(v_rows[there(i)], half);
      k_before[i] = load_pairs<pairs>(k_rot_rows[there(i + 1)], half);
      v_before[i] = load_pairs<pairs>(v_rec_rows[there(i + 1)], half);
    }
  }

  Rotation<pairs> rotation[steps + 1];
  {
    const LaneRows rope(a.rope, lane);
#pragma unroll
    for (int i = 0; i <= steps; ++i) rotation[i] = Rotation<pairs>(rope[there(i)], half);
  }
  float gate[n], k_carry[n], v_carry[n];
#pragma unroll
  for (int j = 0; j < n; ++j) gate[j] = 1.0f, k_carry[j] = 0.0f, v_carry[j] = 0.0f;
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    float e[n];
    rotation[i].turn_back(e, dk[i]);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = sigmoid(f[i][j]);
      gate[j] *= g;
      k_carry[j] = g * (e[j] + k_carry[j]);
      v_carry[j] = g * (dv[i][j] + v_carry[j]);
    }
  }
  scan.put(gate, k_carry, v_carry);
  scan.publish();

  {
    const LaneRows dq_out(a.dq, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      const int t = last - i;
      if (t < begin) break;
      float turned[n];
      rotation[i].turn_back(turned, dq[i]);
      store_pairs<pairs>(dq_out[t], half, turned);
    }
  }

  scan.look_back();
  scan.start(k_carry, v_carry);
  const LaneRows dk_rows(a.dk, lane), dv_rows(a.dv, lane), df_rows(a.df, lane);
#pragma unroll
  for (int i = 0; i < steps; ++i) f[i].forget_derived(), dk[i].forget_derived(), dv[i].forget_derived();
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int t = last - i;
    if (t < begin) break;
    if (t == 0) k_before[i].clear(), v_before[i].clear();  // the states before the first step
    float e[n], k_state[n], dk_out[n], dv_out[n], df_out[n];
    rotation[i].turn_back(e, dk[i]);
    rotation[i + 1].turn_back(k_state, k_before[i]);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = sigmoid(f[i][j]);
      const float s_k = e[j] + k_carry[j], s_v = dv[i][j] + v_carry[j];
      const float dg = s_k * (k_state[j] - k[i][j]) + s_v * (v_before[i][j] - v[i][j]);
      k_carry[j] = g * s_k;
      v_carry[j] = g * s_v;
      dk_out[j] = s_k - k_carry[j];  // (1 - g) s
      dv_out[j] = s_v - v_carry[j];
      df_out[j] = dg * (g * (1.0f - g));
    }
    store_pairs<pairs>(dk_rows[t], half, dk_out);
    store_pairs<pairs>(dv_rows[t], half, dv_out);
    store_pairs<pairs>(df_rows[t], half, df_out);
  }
}

// --- without the gate: RoPE of q and k, and a copy of v ----------------------------------------------------------

template <typename T>
struct Turn {
  HeadRows<const T> q, k, v;
  HeadRows<T> q_out, k_out, v_out;
  HeadRows<const float> rope;
  Sizes sizes;
  bool back;
  int groups;
};

constexpr int turn_steps = 4;  // of a warp

/// Blocks: [steps / (warps turn_steps), groups of channels], the groups fastest.
template <typename T, int pairs>
__global__ void __launch_bounds__(threads) turn_kernel(const __grid_constant__ Turn<T> a) {
  constexpr int steps = turn_steps, n = 2 * pairs;
  const Lane lane = lane_of_group<pairs>(a.sizes, static_cast<int>(blockIdx.x) % a.groups);
  const int half = a.sizes.head_dim / 2;
  const int first =
      (static_cast<int>(blockIdx.x) / a.groups * warps + static_cast<int>(threadIdx.x) / 32) * steps;
  const int end = lane.active ? a.sizes.tokens : 0;
  const LaneRows q_rows(a.q, lane), k_rows(a.k, lane), v_rows(a.v, lane);
  const LaneRows q_out(a.q_out, lane), k_out(a.k_out, lane), v_out(a.v_out, lane);
  const LaneRows rope(a.rope, lane);
  Pairs<T, pairs> q[steps], k[steps], v[steps];
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int there = min(first + i, a.sizes.tokens - 1);
    q[i] = load_pairs<pairs>(q_rows[there], half);
    k[i] = load_pairs<pairs>(k_rows[there], half);
    v[i] = load_pairs<pairs>(v_rows[there], half);
  }
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int t = first + i;
    if (t >= end) break;
    const Rotation<pairs> rotation(rope[t], half);
    float q_turned[n], k_turned[n], v_same[n];
    if (a.back) {
      rotation.turn_back(q_turned, q[i]);
      rotation.turn_back(k_turned, k[i]);
    } else {
      rotation.turn(q_turned, q[i]);
      rotation.turn(k_turned, k[i]);
    }
#pragma unroll
    for (int j = 0; j < n; ++j) v_same[j] = v[i][j];
    store_pairs<pairs>(q_out[t], half, q_turned);
    store_pairs<pairs>(k_out[t], half, k_turned);
    store_pairs<pairs>(v_out[t], half, v_same);
  }
}

/// table [T, 2, P/2].
__global__ void __launch_bounds__(threads)
    rope_table_kernel(float* table, std::int64_t tokens, std::int64_t half, double base) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (index >= tokens * half) return;
  const std::int64_t t = index / half, i = index % half;
  const double angle =
      static_cast<double>(t) * pow(base, -static_cast<double>(i) / static_cast<double>(half));
  table[2 * t * half + i] = static_cast<float>(cos(angle));
  table[(2 * t + 1) * half + i] = static_cast<float>(sin(angle));
}

// --- host --------------------------------------------------------------------------------------------------------

/// The checked sizes of a call.
struct Call {
  Call(const Tensor& projection, const Tensor& rope, DType compute, const char* name)
      : op(name), dtype(compute) {
    check_rank(projection, dtype, 5, op, "projection");
    batch = projection.size(0);
    tokens = projection.size(1);
    heads = projection.size(3);
    head_dim = projection.size(4);
    gated = projection.size(2) == 5;
    require(gated || projection.size(2) == 4, "{}: a projection has 4 or 5 parts, not {}", op,
            projection.size(2));
    require(head_dim % 2 == 0, "{}: the head dimension {} is odd", op, head_dim);
    require(rope.rank() == 3 && rope.size(0) >= tokens, "{}: the rotary table has too few positions", op);
    check(rope, DType::f32, {rope.size(0), 2, head_dim / 2}, op, "rope");
    check_contiguous(rope, op, "rope");
  }

  void check_heads(const Tensor& tensor, const char* name) const {
    check(tensor, dtype, {batch, tokens, heads, head_dim}, op, name);
  }
  bool empty() const { return batch * tokens * heads * head_dim == 0; }
  Sizes sizes() const {
    return {static_cast<int>(batch), static_cast<int>(tokens), static_cast<int>(heads),
            static_cast<int>(head_dim)};
  }

  const char* op;
  DType dtype;
  std::int64_t batch, tokens, heads, head_dim;
  bool gated;
};

int byte_distance(std::int64_t stride, std::int64_t element) {
  require(stride <= std::numeric_limits<int>::max() / element,
          "a token of a tensor of heads is {} elements from the next", stride);
  return static_cast<int>(stride * element);
}

template <typename T>
HeadRows<T> head_rows(const Tensor& tensor) {
  return {elements<T>(tensor), tensor.stride(0), tensor.stride(2),
          byte_distance(tensor.stride(1), sizeof(T))};
}

template <typename T>
HeadRows<T> head_rows(const Tensor& projection, Part part) {
  return {elements<T>(projection) + part * projection.stride(2), projection.stride(0), projection.stride(3),
          byte_distance(projection.stride(1), sizeof(T))};
}

/// The table [T, 2, P/2] as rows that all sequences and heads share: cos, P/2 later sin.
HeadRows<const float> rope_rows(const Tensor& rope) {
  return {rope.as<float>(), 0, 0, byte_distance(rope.stride(0), sizeof(float))};
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

std::int64_t blocks_of(std::int64_t count, std::int64_t block) {
  return (count + block - 1) / block;
}

/// Groups of channels of all sequences.
std::int64_t groups_of(std::int64_t batch, std::int64_t heads, std::int64_t head_dim, int pairs) {
  return batch * blocks_of(heads * (head_dim / 2 / pairs), 32);
}

/// The ticket has a cache line for itself.
constexpr std::int64_t ticket_words = 32;

std::int64_t flag_bytes(std::int64_t groups, std::int64_t chunks) {
  return blocks_of((ticket_words + groups * chunks) * 4, 256) * 256;
}

std::int64_t scan_bytes(std::int64_t groups, std::int64_t chunks, int pairs) {
  return flag_bytes(groups, chunks) + groups * chunks * 5 * (64 * pairs) * 4;
}

/// Lays out the scan in `memory`, and clears its flags.
ScanMemory prepare_scan(void* memory, std::int64_t groups, std::int64_t chunks, cudaStream_t stream) {
  auto* words = static_cast<unsigned*>(memory);
  const auto flags = static_cast<std::size_t>(flag_bytes(groups, chunks));
  check_cuda(cudaMemsetAsync(memory, 0, flags, stream), "clearing the flags of a scan");
  return {words, words + ticket_words, reinterpret_cast<float*>(static_cast<char*>(memory) + flags),
          static_cast<int>(groups), static_cast<int>(chunks)};
}

template <typename T>
void launch_turn(Turn<T> turn, cudaStream_t stream, const char* op) {
  const Sizes& s = turn.sizes;
  const bool twos = all_in_twos(s, turn.rope, turn.q, turn.k, turn.v, turn.q_out, turn.k_out, turn.v_out);
  with_form(twos, 0, [&](auto pairs, auto) {
    turn.groups = static_cast<int>(groups_of(s.batch, s.heads, s.head_dim, pairs));
    const std::int64_t blocks = blocks_of(s.tokens, warps * turn_steps) * turn.groups;
    turn_kernel<T, pairs><<<static_cast<unsigned>(blocks), threads, 0, stream>>>(turn);
  });
  check_launch(op);
}

}  // namespace

std::int64_t recurrence_scratch(const OpShapes& shapes) {
  const std::int64_t chunks = blocks_of(shapes.tokens, warps * std::min(forward_steps, backward_steps));
  std::int64_t bytes = 0;
  for (const int pairs : {1, 2}) {
    bytes = std::max(
        bytes, scan_bytes(groups_of(shapes.batch, shapes.heads, shapes.head_dim, pairs), chunks, pairs));
  }
  return bytes;
}

void CudaOps::rope_table(Tensor table, double base) {
  require(table.rank() == 3, "rope_table: the table has {} dimensions, not 3", table.rank());
  const std::int64_t tokens = table.size(0), half = table.size(2);
  check(table, DType::f32, {tokens, 2, half}, "rope_table", "table");
  check_contiguous(table, "rope_table", "table");
  if (tokens * half == 0) return;
  rope_table_kernel<<<static_cast<unsigned>(blocks_of(tokens * half, threads)), threads, 0, stream_>>>(
      table.as<float>(), tokens, half, base);
  check_launch("rope_table");
}

void CudaOps::recurrence_rope_forward(Tensor q_rot, Tensor k_rot, Tensor v_rec, Tensor projection,
                                      Tensor rope) {
  const char* op = "recurrence_rope_forward";
  const Call call(projection, rope, compute_, op);
  call.check_heads(q_rot, "q_rot");
  call.check_heads(k_rot, "k_rot");
  call.check_heads(v_rec, "v_rec");
  if (call.empty()) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    const auto q = head_rows<const T>(projection, part_q), k = head_rows<const T>(projection, part_k),
               v = head_rows<const T>(projection, part_v);
    const auto q_out = head_rows<T>(q_rot), k_out = head_rows<T>(k_rot), v_out = head_rows<T>(v_rec);
    const auto table = rope_rows(rope);
    const Sizes s = call.sizes();
    if (!call.gated) return launch_turn<T>({q, k, v, q_out, k_out, v_out, table, s, false, 0}, stream_, op);
    Forward<T> forward{q, k, v, head_rows<const T>(projection, part_f), q_out, k_out, v_out, table, s, {}};
    const bool twos = all_in_twos(s, table, q, k, v, forward.f, q_out, k_out, v_out);
    with_form(twos, s.head_dim, [&](auto pairs, auto fixed_half) {
      const std::int64_t groups = groups_of(s.batch, s.heads, s.head_dim, pairs);
      const std::int64_t chunks = blocks_of(s.tokens, warps * forward_steps);
      forward.scan = prepare_scan(scratch(scan_bytes(groups, chunks, pairs), op), groups, chunks, stream_);
      forward_kernel<T, pairs, fixed_half>
          <<<static_cast<unsigned>(groups * chunks), threads, 0, stream_>>>(forward);
    });
    check_launch(op);
  });
}

void CudaOps::recurrence_rope_backward(Tensor dprojection, Tensor dq_rot, Tensor dk_rot, Tensor dv_rec,
                                       Tensor projection, Tensor k_rot, Tensor v_rec, Tensor rope) {
  const char* op = "recurrence_rope_backward";
  const Call call(projection, rope, compute_, op);
  check(dprojection, compute_, {call.batch, call.tokens, call.gated ? 5 : 4, call.heads, call.head_dim}, op,
        "dprojection");
  call.check_heads(dq_rot, "dq_rot");
  call.check_heads(dk_rot, "dk_rot");
  call.check_heads(dv_rec, "dv_rec");
  call.check_heads(k_rot, "k_rot");
  call.check_heads(v_rec, "v_rec");
  if (call.empty()) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    const auto dq_in = head_rows<const T>(dq_rot), dk_in = head_rows<const T>(dk_rot),
               dv_in = head_rows<const T>(dv_rec);
    const auto dq = head_rows<T>(dprojection, part_q), dk = head_rows<T>(dprojection, part_k),
               dv = head_rows<T>(dprojection, part_v);
    const auto table = rope_rows(rope);
    const Sizes s = call.sizes();
    if (!call.gated) return launch_turn<T>({dq_in, dk_in, dv_in, dq, dk, dv, table, s, true, 0}, stream_, op);
    const auto k = head_rows<const T>(projection, part_k), v = head_rows<const T>(projection, part_v),
               f = head_rows<const T>(projection, part_f), k_out = head_rows<const T>(k_rot),
               v_out = head_rows<const T>(v_rec);
    const auto df = head_rows<T>(dprojection, part_f);
    Backward<T> backward{dq_in, dk_in, dv_in, k, v, f, k_out, v_out, dq, dk, dv, df, table, s, {}};
    const bool twos = all_in_twos(s, table, dq_in, dk_in, dv_in, k, v, f, k_out, v_out, dq, dk, dv, df);
    with_form(twos, s.head_dim, [&](auto pairs, auto fixed_half) {
      const std::int64_t groups = groups_of(s.batch, s.heads, s.head_dim, pairs);
      const std::int64_t chunks = blocks_of(s.tokens, warps * backward_steps);
      backward.scan = prepare_scan(scratch(scan_bytes(groups, chunks, pairs), op), groups, chunks, stream_);
      backward_kernel<T, pairs, fixed_half>
          <<<static_cast<unsigned>(groups * chunks), threads, 0, stream_>>>(backward);
    });
    check_launch(op);
  });
}

}  // namespace ratplus::cuda
