// The gated recurrence on keys and values, and the rotary position embedding of queries and keys, in one pass over
// the projection (docs/model.md, section 5). RoPE: Su et al., "RoFormer", 2021.
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

#include "kernels/cuda/recurrence_scan.cuh"
#include "kernels/cuda/shared_heads.cuh"

namespace ratplus::cuda {
namespace {

using namespace rotary;

/// What a kernel scans. Of queries, keys and values together it takes the plain form of the call; else it can restart
/// within the sequence, has a bias in its gates and may share heads of keys, and queries are another kernel's.
enum class Parts { queries_keys_values, keys_values, values };

/// What the other forms have beside the plain one's.
struct Chunks {
  HeadRows<const float> bias;  ///< [H, P] as rows that all sequences and tokens share; null data: zero
  int shared;                  ///< G: head h reads the keys of head h mod G
  int chunk;                   ///< L; 0: no restarts
  int position;                ///< of the first token
};

/// Bit i of the result: whether step i of a warp is a chunk's first, of `steps` from position `first` on, upwards or
/// downwards.
template <int steps, bool upwards>
__device__ __forceinline__ unsigned restarts_of(const Chunks& x, int first) {
  if (x.chunk == 0) return 0;
  const int within = first % x.chunk;
  int next = !upwards || within == 0 ? within : x.chunk - within;
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    if (i != next) continue;
    bits |= 1u << i;
    next += x.chunk;
  }
  return bits;
}

/// The gate's bias of a lane's channels.
template <int pairs>
struct Bias {
  static constexpr int n = 2 * pairs;
  float x[n];

  __device__ __forceinline__ Bias(const Chunks& chunks, const Lane& lane, int half) {
    if (chunks.bias.data == nullptr) {
#pragma unroll
      for (float& b : x) b = 0.0f;
      return;
    }
    const auto loaded = load_pairs<pairs>(LaneRows(chunks.bias, lane)[0], half);
#pragma unroll
    for (int j = 0; j < n; ++j) x[j] = loaded[j];
  }
};

/// The lane of the keys that a head reads.
__device__ __forceinline__ Lane key_lane(const Chunks& chunks, const Lane& lane) {
  return {lane.active, lane.batch, lane.head % chunks.shared, lane.i};
}

// Steps of a warp: what its registers hold.
constexpr int forward_steps = 8, backward_steps = 4;

/// A lane's channels of the state after the last step, where the scan's own chunks do not end with it.
template <int n>
__device__ __forceinline__ void store_state(const ScanMemory& scan, const Sizes& sizes, const Lane& lane,
                                            const float (&k)[n], const float (&v)[n]) {
  if (scan.state_out == nullptr || scan.whole) return;
  constexpr int pairs = n / 2;
  const int half = sizes.head_dim / 2;
#pragma unroll
  for (int x = 0; x < 2; ++x) {
    float* row =
        scan.state_out +
        ((static_cast<std::int64_t>(lane.batch) * 2 + x) * sizes.heads + lane.head) * sizes.head_dim + lane.i;
#pragma unroll
    for (int j = 0; j < n; ++j) row[j < pairs ? j : half + j - pairs] = x == 0 ? k[j] : v[j];
  }
}

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
  Chunks chunks;
};

template <typename T, int pairs, int fixed_half, Parts parts>
__global__ void __launch_bounds__(threads, sizeof(T) == 2 ? 2 : 1)
    forward_kernel(const __grid_constant__ Forward<T> a) {
  constexpr int steps = forward_steps, n = 2 * pairs;
  constexpr bool queries = parts == Parts::queries_keys_values, keys = parts != Parts::values,
                 in_chunks = !queries;
  __shared__ typename BlockScan<pairs>::Shared shared;
  BlockScan<pairs> scan(a.scan, shared);
  const Lane lane = lane_of_group<pairs>(a.sizes, scan.group());
  const int half = fixed_half ? fixed_half : a.sizes.head_dim / 2;
  const int first = (scan.chunk() * warps + static_cast<int>(threadIdx.x) / 32) * steps;
  const int end = lane.active ? a.sizes.tokens : 0;
  const auto there = [&](int i) { return min(first + i, a.sizes.tokens - 1); };

  Pairs<T, pairs> q[steps], k[steps], v[steps], f[steps];
  {
    const LaneRows f_rows(a.f, lane), k_rows(a.k, in_chunks && keys ? key_lane(a.chunks, lane) : lane),
        v_rows(a.v, lane), q_rows(a.q, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      f[i] = load_pairs<pairs>(f_rows[there(i)], half);
      if constexpr (keys) k[i] = load_pairs<pairs>(k_rows[there(i)], half);
      v[i] = load_pairs<pairs>(v_rows[there(i)], half);
    }
    if constexpr (queries) {
#pragma unroll
      for (int i = 0; i < steps; ++i) q[i] = load_pairs<pairs>(q_rows[there(i)], half);
    }
  }
  [[maybe_unused]] unsigned restarts = 0;
  [[maybe_unused]] const Bias<pairs> bias(in_chunks ? a.chunks : Chunks{}, lane, half);
  if constexpr (in_chunks) restarts = restarts_of<steps, true>(a.chunks, a.chunks.position + first);
  /// A step's gate; the state before it becomes zero where it is a chunk's first.
  const auto gate_at = [&](int i, int j) {
    if constexpr (in_chunks) return sigmoid(f[i][j] + bias.x[j]);
    return sigmoid(f[i][j]);
  };
  const auto restart = [&](int i, float(&k_state)[n], float(&v_state)[n]) {
    if constexpr (in_chunks) {
      if ((restarts >> i & 1) == 0) return;
#pragma unroll
      for (int j = 0; j < n; ++j) k_state[j] = 0.0f, v_state[j] = 0.0f;
    }
  };

  float gate[n], k_state[n], v_state[n];
#pragma unroll
  for (int j = 0; j < n; ++j) gate[j] = 1.0f, k_state[j] = 0.0f, v_state[j] = 0.0f;
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    restart(i, k_state, v_state);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = gate_at(i, j);
      gate[j] *= g;
      if constexpr (in_chunks) gate[j] = (restarts >> i & 1) == 0 ? gate[j] : 0.0f;
      if constexpr (keys) k_state[j] = fmaf(g, k_state[j] - k[i][j], k[i][j]);  // g k~ + (1 - g) k
      v_state[j] = fmaf(g, v_state[j] - v[i][j], v[i][j]);
    }
  }
  scan.put(gate, k_state, v_state);
  // All at once, so that they are under way together; then kept for the keys.
  Rotation<pairs> rotation[steps];
  if constexpr (keys) {
    const LaneRows rope(a.rope, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) rotation[i] = Rotation<pairs>(rope[there(i)], half);
  }
  scan.publish();

  // Queries wait for nobody: their turn is while other chunks publish.
  if constexpr (queries) {
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

  scan.template look_back<in_chunks>();
  scan.start(k_state, v_state);
  const LaneRows k_rot(a.k_rot, lane), v_rec(a.v_rec, lane);
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    f[i].forget_derived(), v[i].forget_derived();
    if constexpr (keys) k[i].forget_derived();
  }
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int t = first + i;
    if (t >= end) break;
    restart(i, k_state, v_state);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = gate_at(i, j);
      if constexpr (keys) k_state[j] = fmaf(g, k_state[j] - k[i][j], k[i][j]);
      v_state[j] = fmaf(g, v_state[j] - v[i][j], v[i][j]);
    }
    if constexpr (keys) {
      float turned[n];
      rotation[i].turn(turned, k_state);
      store_pairs<pairs>(k_rot[t], half, turned);
    }
    store_pairs<pairs>(v_rec[t], half, v_state);
    if (t == a.sizes.tokens - 1) store_state(a.scan, a.sizes, lane, k_state, v_state);
  }
}

// --- backward ----------------------------------------------------------------------------------------------------

template <typename T>
struct Backward {
  HeadRows<const T> dq_rot, dk_rot, dv_rec, k, v, f, k_rot, v_rec;
  HeadRows<T> dq, dk, dv, df;
  HeadRows<const T> k_rot_before, v_rec_before;  ///< one row a sequence and head; null data: none
  HeadRows<const float> rope;
  Sizes sizes;
  ScanMemory scan;
  Chunks chunks;
};

/// The scan runs from the last step to the first: with the incoming gradient e_t and the carry c_t = g_t s_t, s_t =
/// e_t + c_{t+1}. Steps and chunks are counted in that order: step i of a warp is t = last - i.
template <typename T, int pairs, int fixed_half, Parts parts>
__global__ void __launch_bounds__(threads, sizeof(T) == 2 ? 2 : 1)
    backward_kernel(const __grid_constant__ Backward<T> a) {
  constexpr int steps = backward_steps, n = 2 * pairs;
  constexpr bool queries = parts == Parts::queries_keys_values, keys = parts != Parts::values,
                 in_chunks = !queries;
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
        dq_rows(a.dq_rot, lane), k_rows(a.k, in_chunks && keys ? key_lane(a.chunks, lane) : lane),
        v_rows(a.v, lane), k_rot_rows(a.k_rot, lane), v_rec_rows(a.v_rec, lane);
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      f[i] = load_pairs<pairs>(f_rows[there(i)], half);
      if constexpr (keys) dk[i] = load_pairs<pairs>(dk_rows[there(i)], half);
      dv[i] = load_pairs<pairs>(dv_rows[there(i)], half);
    }
#pragma unroll
    for (int i = 0; i < steps; ++i) {
      if constexpr (queries) dq[i] = load_pairs<pairs>(dq_rows[there(i)], half);
      if constexpr (keys) k[i] = load_pairs<pairs>(k_rows[there(i)], half);
      v[i] = load_pairs<pairs>(v_rows[there(i)], half);
      if constexpr (keys) k_before[i] = load_pairs<pairs>(k_rot_rows[there(i + 1)], half);
      v_before[i] = load_pairs<pairs>(v_rec_rows[there(i + 1)], half);
    }
  }

  Rotation<pairs> rotation[steps + 1];
  if constexpr (keys) {
    const LaneRows rope(a.rope, lane);
#pragma unroll
    for (int i = 0; i <= steps; ++i) rotation[i] = Rotation<pairs>(rope[there(i)], half);
  }
  [[maybe_unused]] unsigned restarts = 0;
  [[maybe_unused]] const Bias<pairs> bias(in_chunks ? a.chunks : Chunks{}, lane, half);
  if constexpr (in_chunks) restarts = restarts_of<steps, false>(a.chunks, a.chunks.position + last);
  const auto gate_at = [&](int i, int j) {
    if constexpr (in_chunks) return sigmoid(f[i][j] + bias.x[j]);
    return sigmoid(f[i][j]);
  };
  /// Nothing is carried from a chunk's first step to the chunk before.
  const auto restart = [&](int i, float(&k_carry)[n], float(&v_carry)[n]) {
    if constexpr (in_chunks) {
      if ((restarts >> i & 1) == 0) return;
#pragma unroll
      for (int j = 0; j < n; ++j) k_carry[j] = 0.0f, v_carry[j] = 0.0f;
    }
  };
  float gate[n], k_carry[n], v_carry[n];
#pragma unroll
  for (int j = 0; j < n; ++j) gate[j] = 1.0f, k_carry[j] = 0.0f, v_carry[j] = 0.0f;
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    [[maybe_unused]] float e[n];
    if constexpr (keys) rotation[i].turn_back(e, dk[i]);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = gate_at(i, j);
      gate[j] *= g;
      if constexpr (in_chunks) gate[j] = (restarts >> i & 1) == 0 ? gate[j] : 0.0f;
      if constexpr (keys) k_carry[j] = g * (e[j] + k_carry[j]);
      v_carry[j] = g * (dv[i][j] + v_carry[j]);
    }
    restart(i, k_carry, v_carry);
  }
  scan.put(gate, k_carry, v_carry);
  scan.publish();

  if constexpr (queries) {
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

  scan.template look_back<in_chunks>();
  scan.start(k_carry, v_carry);
  const LaneRows dk_rows(a.dk, lane), dv_rows(a.dv, lane), df_rows(a.df, lane);
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    f[i].forget_derived(), dv[i].forget_derived();
    if constexpr (keys) dk[i].forget_derived();
  }
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int t = last - i;
    if (t < begin) break;
    if (t == 0) {  // the states before the first step
      if (a.v_rec_before.data == nullptr) {
        k_before[i].clear(), v_before[i].clear();
      } else {
        if constexpr (keys) {
          k_before[i] = load_pairs<pairs>(LaneRows(a.k_rot_before, lane)[0], half);
          rotation[i + 1] = Rotation<pairs>(LaneRows(a.rope, lane)[-1], half);
        }
        v_before[i] = load_pairs<pairs>(LaneRows(a.v_rec_before, lane)[0], half);
      }
    }
    if constexpr (in_chunks) {
      if ((restarts >> i & 1) != 0) k_before[i].clear(), v_before[i].clear();
    }
    [[maybe_unused]] float e[n], k_state[n], dk_out[n];
    float dv_out[n], df_out[n];
    // The carry for the state before the sequence: a product of its own, so that the one of k_carry and v_carry is fused as
    // it is where no such carry is wanted.
    float k_first[n], v_first[n];
    if constexpr (keys) {
      rotation[i].turn_back(e, dk[i]);
      rotation[i + 1].turn_back(k_state, k_before[i]);
    }
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float g = gate_at(i, j), s_v = dv[i][j] + v_carry[j];
      float dg;
      if constexpr (keys) {
        const float s_k = e[j] + k_carry[j];
        dg = s_k * (k_state[j] - k[i][j]) + s_v * (v_before[i][j] - v[i][j]);
        k_carry[j] = g * s_k;
        k_first[j] = __fmul_rn(g, s_k);
        dk_out[j] = s_k - k_carry[j];  // (1 - g) s
      } else {
        k_first[j] = 0.0f;
        dg = s_v * (v_before[i][j] - v[i][j]);
      }
      v_carry[j] = g * s_v;
      v_first[j] = __fmul_rn(g, s_v);
      dv_out[j] = s_v - v_carry[j];
      df_out[j] = dg * (g * (1.0f - g));
    }
    restart(i, k_carry, v_carry);
    if constexpr (keys) store_pairs<pairs>(dk_rows[t], half, dk_out);
    store_pairs<pairs>(dv_rows[t], half, dv_out);
    store_pairs<pairs>(df_rows[t], half, df_out);
    restart(i, k_first, v_first);
    if (t == 0) store_state(a.scan, a.sizes, lane, k_first, v_first);
  }
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

namespace {

/// The rows of a tensor that may be absent.
template <typename T>
HeadRows<T> rows_or_none(const Tensor& tensor) {
  return tensor ? head_rows<T>(tensor) : HeadRows<T>{};
}

HeadRows<const float> rope_or_none(const Tensor& rope, std::int64_t first_position) {
  return rope ? rope_rows(rope, first_position) : HeadRows<const float>{};
}

template <typename Call>
Chunks chunks_of(const Call& call) {
  HeadRows<const float> bias{};
  if (call.gate_bias) bias = {call.gate_bias.template as<float>(), 0, call.gate_bias.stride(0), 0};
  return {bias, static_cast<int>(call.k ? call.k.size(2) : 1), static_cast<int>(call.chunk),
          static_cast<int>(call.first_position)};
}

/// Calls f(integral_constant<Parts>) with the form of a call with a gate.
template <typename Call, typename F>
void with_parts(const Call& call, F&& f) {
  using std::integral_constant;
  if (call.plain()) return f(integral_constant<Parts, Parts::queries_keys_values>{});
  if (call.k) return f(integral_constant<Parts, Parts::keys_values>{});
  f(integral_constant<Parts, Parts::values>{});
}

}  // namespace

void CudaOps::compute(const operation::RecurrenceForward& call) {
  if (call.v ? call.v.numel() == 0 : call.q ? call.q.numel() == 0 : call.k.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    const auto q = rows_or_none<const T>(call.q), k = rows_or_none<const T>(call.k),
               v = rows_or_none<const T>(call.v);
    const auto q_out = rows_or_none<T>(call.q_rot), k_out = rows_or_none<T>(call.k_rot),
               v_out = rows_or_none<T>(call.v_rec);
    const auto table = rope_or_none(call.rope, call.first_position);
    if (call.plain() && !call.gated()) {
      return launch_turn<T>({q, k, v, q_out, k_out, v_out, table, sizes_of(call.q), false, 0}, stream_,
                            call.name);
    }
    if (!call.plain()) {
      if (call.q) launch_turn_one<T>(q, q_out, table, sizes_of(call.q), false, stream_, call.name);
      if (!call.gated()) {
        if (call.k) launch_turn_one<T>(k, k_out, table, sizes_of(call.k), false, stream_, call.name);
        if (call.v) compute(operation::Copy{call.v_rec, call.v});
        return;
      }
    }
    const Sizes s = sizes_of(call.f);
    Forward<T> forward{
        q, k, v, head_rows<const T>(call.f), q_out, k_out, v_out, table, s, {}, chunks_of(call)};
    const bool twos = all_in_twos(s, table, q, k, v, forward.f, q_out, k_out, v_out, forward.chunks.bias);
    with_form(twos, s.head_dim, [&](auto pairs, auto fixed_half) {
      constexpr int chunk = warps * forward_steps;
      const std::int64_t groups = groups_of(s.batch, s.heads, s.head_dim, pairs),
                         chunks = blocks_of(s.tokens, chunk);
      forward.scan = prepare_scan(scratch(scan_bytes(groups, chunks, pairs), call.name), groups, chunks, s,
                                  s.tokens % chunk == 0, call.state_in, call.state_out, stream_);
      forward.scan.restarts =
          call.chunk > 0 && chunk % call.chunk == 0 && call.first_position % call.chunk == 0;
      with_parts(call, [&](auto parts) {
        forward_kernel<T, pairs, fixed_half, parts>
            <<<static_cast<unsigned>(groups * chunks), threads, 0, stream_>>>(forward);
      });
    });
    check_launch(call.name);
  });
}

void CudaOps::compute(const operation::RecurrenceBackward& call) {
  if (call.dv ? call.dv.numel() == 0 : call.dq ? call.dq.numel() == 0 : call.dk.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    const auto dq_in = rows_or_none<const T>(call.dq_rot), dk_in = rows_or_none<const T>(call.dk_rot),
               dv_in = rows_or_none<const T>(call.dv_rec);
    const auto dq = rows_or_none<T>(call.dq), dv = rows_or_none<T>(call.dv);
    auto dk = rows_or_none<T>(call.dk);
    const auto table = rope_or_none(call.rope, call.first_position);
    if (call.plain() && !call.gated()) {
      return launch_turn<T>({dq_in, dk_in, dv_in, dq, dk, dv, table, sizes_of(call.dq), true, 0}, stream_,
                            call.name);
    }
    /// The sum over the heads h of x with h mod G equal, G of out.
    const auto sum = [&](const Tensor& out, const Tensor& x, const HeadRows<const float>& rope) {
      const auto shared = static_cast<int>(out.size(2));
      launch_sum_heads<T>(head_rows<const T>(x), head_rows<T>(out), rope, sizes_of(out),
                          {static_cast<int>(x.size(2)) / shared, shared, 1}, stream_, call.name);
    };
    if (!call.plain()) {
      if (call.dq && call.dq.size(2) == call.dq_rot.size(2)) {
        launch_turn_one<T>(dq_in, dq, table, sizes_of(call.dq), true, stream_, call.name);
      } else if (call.dq) {
        sum(call.dq, call.dq_rot, table);
      }
      if (!call.gated()) {
        if (call.dk) launch_turn_one<T>(dk_in, dk, table, sizes_of(call.dk), true, stream_, call.name);
        if (call.dv) compute(operation::Copy{call.dv, call.dv_rec});
        return;
      }
    }
    const bool shares = call.dk && call.dk.size(2) != call.f.size(2);
    if (shares) dk = head_rows<T>(call.dk_rot);  // each head's, in the place of what it is made of
    const Sizes s = sizes_of(call.f);
    const auto k = rows_or_none<const T>(call.k), v = head_rows<const T>(call.v),
               f = head_rows<const T>(call.f), k_out = rows_or_none<const T>(call.k_rot),
               v_out = head_rows<const T>(call.v_rec);
    const auto df = head_rows<T>(call.df);
    const auto k_before = rows_or_none<const T>(call.k_rot_before),
               v_before = rows_or_none<const T>(call.v_rec_before);
    Backward<T> backward{dq_in, dk_in, dv_in, k,        v,        f,     k_out, v_out, dq,
                         dk,    dv,    df,    k_before, v_before, table, s,     {},    chunks_of(call)};
    const bool twos = all_in_twos(s, table, dq_in, dk_in, dv_in, k, v, f, k_out, v_out, dq, dk, dv, df,
                                  k_before, v_before, backward.chunks.bias);
    with_form(twos, s.head_dim, [&](auto pairs, auto fixed_half) {
      constexpr int chunk = warps * backward_steps;
      const std::int64_t groups = groups_of(s.batch, s.heads, s.head_dim, pairs),
                         chunks = blocks_of(s.tokens, chunk);
      backward.scan = prepare_scan(scratch(scan_bytes(groups, chunks, pairs), call.name), groups, chunks, s,
                                   s.tokens % chunk == 0, call.dstate_out, call.dstate_in, stream_);
      backward.scan.restarts =
          call.chunk > 0 && chunk % call.chunk == 0 && (call.first_position + s.tokens) % call.chunk == 0;
      with_parts(call, [&](auto parts) {
        backward_kernel<T, pairs, fixed_half, parts>
            <<<static_cast<unsigned>(groups * chunks), threads, 0, stream_>>>(backward);
      });
    });
    check_launch(call.name);
    if (shares) sum(call.dk, call.dk_rot, {});
  });
}

}  // namespace ratplus::cuda
