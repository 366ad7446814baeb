// The scan of the gated recurrence over the chunks of a sequence: a single pass with look-back (Merrill and Garland,
// "Single-pass parallel prefix scan with decoupled look-back", 2016), of which recurrence.cu tells the whole.
#pragma once

#include "kernels/cuda/rotary.cuh"

namespace ratplus::cuda::rotary {

/// What has been published of a chunk.
enum Published : unsigned { nothing = 0, its_map = 1, its_state = 2 };

/// In scratch. A map of a group's chunk is [gate, state of k, state of v, k after, v after], each [32 lanes, 2
/// pairs] f32; the last two are the true states after the chunk.
struct ScanMemory {
  unsigned* ticket;     ///< zero at first, as `published`
  unsigned* published;  ///< [groups, chunks]
  float* maps;          ///< [groups, chunks, 5, channels]
  int groups, chunks;
  // The state that the sequence carries in and out, f32 [B, 2, H, P]; null: zero, and not wanted.
  const float* state_in;
  float* state_out;
  int heads, head_dim;
  bool
      whole;  ///< all chunks have all their steps: then the state after the last one is a chunk's, to the bit
  /// The recurrence restarts with every chunk of the scan: no state crosses from one to the next. Looked at by
  /// look_back<true> alone.
  bool restarts = false;
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
  template <bool may_restart = false>
  __device__ __forceinline__ void look_back() {
    const bool alone = may_restart && memory_.restarts;
    if (!alone && threadIdx.x < 32) {
      const int nearest = wait_for_nearest_state();
      if (threadIdx.x == 0) shared_.nearest = nearest;
    }
    __syncthreads();
    if (works()) {
      const int c = channel(), x = of_v();
      const float before = alone ? 0.0f : state_before(shared_.nearest, c, x);
      shared_.carry[x][c] = before;
      const float after = fmaf(gate_, before, state_);
      if (!last()) map(chunk_)[(3 + x) * channels + c] = after;
      if (last() && memory_.whole && memory_.state_out != nullptr) {
        const std::int64_t at = state_index(c, x);
        if (at >= 0) memory_.state_out[at] = after;
      }
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

  /// Element of a carried state for channel c of the group; -1 past the last head.
  __device__ __forceinline__ std::int64_t state_index(int c, int x) const {
    const int half = memory_.head_dim / 2, per_head = half / pairs, per_sequence = memory_.heads * per_head;
    const int groups = (per_sequence + 31) / 32, index = group_ % groups * 32 + c / lane_channels;
    if (index >= per_sequence) return -1;
    const int j = c % lane_channels, i = index % per_head * pairs + (j < pairs ? j : half + j - pairs);
    return ((static_cast<std::int64_t>(group_ / groups) * 2 + x) * memory_.heads + index / per_head) *
               memory_.head_dim +
           i;
  }
  __device__ __forceinline__ float carried_in(int c, int x) const {
    if (memory_.state_in == nullptr) return 0.0f;
    const std::int64_t at = state_index(c, x);
    return at < 0 ? 0.0f : memory_.state_in[at];
  }

  /// __ldcg: past the L1 cache, which does not see what other processors write.
  __device__ __forceinline__ float state_before(int nearest, int c, int x) const {
    float state = nearest < 0 ? carried_in(c, x) : __ldcg(map(nearest) + (3 + x) * channels + c);
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

// --- host: the scan's memory ----------------------------------------------------------------------------------------

/// The ticket has a cache line for itself.
constexpr std::int64_t ticket_words = 32;

inline std::int64_t flag_bytes(std::int64_t groups, std::int64_t chunks) {
  return blocks_of((ticket_words + groups * chunks) * 4, 256) * 256;
}

inline std::int64_t scan_bytes(std::int64_t groups, std::int64_t chunks, int pairs) {
  return flag_bytes(groups, chunks) + groups * chunks * 5 * (64 * pairs) * 4;
}

/// Lays out the scan in `memory`, and clears its flags. state_in, state_out: f32 [B, 2, H, P], or empty.
inline ScanMemory prepare_scan(void* memory, std::int64_t groups, std::int64_t chunks, const Sizes& sizes,
                               bool whole, const Tensor& state_in, const Tensor& state_out,
                               cudaStream_t stream) {
  auto* words = static_cast<unsigned*>(memory);
  const auto flags = static_cast<std::size_t>(flag_bytes(groups, chunks));
  check_cuda(cudaMemsetAsync(memory, 0, flags, stream), "clearing the flags of a scan");
  return {words,
          words + ticket_words,
          reinterpret_cast<float*>(static_cast<char*>(memory) + flags),
          static_cast<int>(groups),
          static_cast<int>(chunks),
          state_in ? state_in.as<float>() : nullptr,
          state_out ? state_out.as<float>() : nullptr,
          sizes.heads,
          sizes.head_dim,
          whole};
}

}  // namespace ratplus::cuda::rotary
