// The step of a mixer: one token of each sequence (docs/model.md, section 19).
//
// A block takes one head of keys of one sequence and, where the sequence has many keys, a part of them; the block that comes
// last adds the parts in their order, beginning with the token's own key, and is the only one that writes the state and the
// cache. Keys are taken in the order of their entries. Which part has which keys, and every order of sums, depends on the
// sequence's own number of keys alone.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cuda/cache_rows.cuh"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/mixer_keys.cuh"
#include "kernels/cuda/overlap.cuh"

namespace ratplus::cuda {
namespace {

using namespace mixer;

/// Rows of heads [B, heads, P].
template <typename T>
struct StepRows {
  T* data = nullptr;
  std::int64_t row = 0, head = 0;
  int heads = 1;

  __device__ __forceinline__ T* at(int b, int h) const { return data + b * row + h * head; }
};

template <typename T>
StepRows<T> step_rows(const Tensor& x) {
  if (x.empty()) return {};
  return {elements<T>(x), x.stride(0), x.stride(1), static_cast<int>(x.size(1))};
}

/// The number of keys that a query finds in the cache, CacheLayout::runs(t).keys(), in 32-bit numbers.
struct KeyCount {
  explicit KeyCount(const CacheLayout& layout)
      : sinks(narrow(layout.sinks)),
        window(narrow(layout.window)),
        near(narrow(layout.sinks + layout.window)),
        dilation(narrow(layout.dilation)),
        dilated_sinks(dilation > 0 ? sinks / dilation : 0) {}

  __device__ __forceinline__ int at(int t) const {
    const int passed = t - window;
    return min(t, near) + (dilation > 0 && passed > sinks ? passed / dilation - dilated_sinks : 0);
  }
  /// CacheLayout::recent_entry(t) and dilated_entry(t).
  __device__ __forceinline__ int recent_entry(int t) const {
    if (t < sinks) return t;
    return window == 0 ? -1 : sinks + (t - sinks) % window;
  }
  __device__ __forceinline__ int dilated_entry(int t) const {
    if (dilation == 0 || t < sinks || (t + 1) % dilation != 0) return -1;
    return near + t / dilation - dilated_sinks;
  }

  int sinks, window, near, dilation, dilated_sinks;

 private:
  static int narrow(std::int64_t x) { return static_cast<int>(std::min(x, std::int64_t{1} << 30)); }
};

template <typename T>
struct StepArguments {
  StepRows<T> z, o, q, k, v, f;
  const float* gate_bias;  ///< [Hk, P], or null
  float* states;
  std::int64_t state_slot, state_part, state_head;
  const int *slots, *positions;
  const float* rope;
  CacheRows<T> cache;
  KeyCount keys;
  const int *tables, *heads, *first_heads, *keeps_state;
  std::int64_t table_row;
  float* partials;  ///< [B, heads of the call, parts, P + 2]: weights' maximum, their sum, values
  int* arrivals;    ///< [B, M]
  int all_heads, parts, chunk, head_dim;
  int ring_keys;  ///< keys for which the block has shared memory
  bool at_rest;   ///< caches and states are read while the kernels before still run
};

/// k~ or v~ of this token: g before + (1 - g) x.
__device__ __forceinline__ float recur(float g, float before, float x) {
  return x + g * (before - x);
}

template <typename T>
__device__ __forceinline__ bool restarts_at(const StepArguments<T>& a, int t) {
  return a.chunk > 0 ? t % a.chunk == 0 : t == 0;
}

template <typename T>
__device__ __forceinline__ float output_gate(const StepArguments<T>& a, int b, int h, int i) {
  return a.o.data ? sigmoid(to_float(a.o.at(b, h)[i])) : 1.0f;
}

/// Without attention: z = v~ sigmoid(o). Block (head, b).
template <typename T>
__global__ void __launch_bounds__(threads) recurrence_step_kernel(StepArguments<T> a) {
  let_next_kernel_begin();
  wait_for_kernels_before();
  const int head = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y), slot = a.slots[b];
  if (slot < 0) return;
  const int t = a.positions[b];
  float* state = a.states ? a.states + slot * a.state_slot + head * a.state_head : nullptr;
  for (int i = static_cast<int>(threadIdx.x); i < a.head_dim; i += threads) {
    float v = to_float(a.v.at(b, head)[i]);
    if (a.f.data) {
      const float bias = a.gate_bias ? a.gate_bias[head * a.head_dim + i] : 0.0f;
      const float g = sigmoid(to_float(a.f.at(b, head)[i]) + bias);
      v = recur(g, restarts_at(a, t) ? 0.0f : state[a.state_part + i], v);
    }
    if (state) state[a.state_part + i] = v;
    a.z.at(b, head)[i] = from_float<T>(v * output_gate(a, b, head, i));
  }
}

/// Inputs of a token's step that rest before it, for the channels i and i + P/2 of a key and its value.
struct Resting {
  float cosine = 0, sine = 0, bias[2] = {},
        state[2][2] = {};  ///< of the pair; state: k~ and v~ of the token before

  template <typename T>
  __device__ __forceinline__ void read(const StepArguments<T>& a, int head, int i, int half,
                                       const float* rope, const float* states, bool restarts) {
    cosine = rope[i], sine = rope[half + i];
    if (a.f.data == nullptr) return;
    if (a.gate_bias) {
      const float* const biases = a.gate_bias + head * a.head_dim;
      bias[0] = biases[i], bias[1] = biases[half + i];
    }
    if (restarts) return;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      state[part][0] = states[part * a.state_part + i];
      state[part][1] = states[part * a.state_part + half + i];
    }
  }
};

/// Shared memory behind the stages: queries and output gates [heads, P]; k~ rotated and v~ [2, P]; the new state [2, P];
/// records of the warps [warps, P + record_tail], in tiles [warps, heads, P + record_tail]: values, largest, sum; in tiles the
/// split queries, bf16 [2 heads, P]; scores of the own key [heads].
constexpr int shared_floats(int heads, int p, bool in_tiles) {
  const int of_tiles = in_tiles ? (heads - 1) * warps * (p + record_tail) + heads * p : 0;
  return 2 * heads * p + 4 * p + warps * (p + record_tail) + of_tiles + heads;
}

/// Blocks that a multiprocessor has registers for.
constexpr int blocks_of_sm(int heads, bool in_tiles) {
  return in_tiles ? 3 : heads == 1 ? 4 : 2;
}

/// Block (m, b, part).
template <typename T, int channels, int lanes, int heads, bool in_tiles>
__global__ void __launch_bounds__(threads, blocks_of_sm(heads, in_tiles))
    mixer_step_kernel(StepArguments<T> a) {
  using Stages = KeyStages<T, channels, lanes, in_tiles>;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ std::uint64_t filled[Stages::stages];
  __shared__ bool last;
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (Stages::bulk) {
    if (thread < Stages::stages) init_barrier(shared_address(filled + thread));
    __syncthreads();
  }
  let_next_kernel_begin();
  if (!a.at_rest) wait_for_kernels_before();

  const int m = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y),
            part = static_cast<int>(blockIdx.z);
  const int slot = a.slots[b], t = a.positions[b], first_head = a.first_heads[m],
            head_count = heads == 1 ? 1 : a.first_heads[m + 1] - first_head, key_head = a.cache.heads[m];
  const int p = in_tiles ? channels * lanes : a.head_dim, half = p / 2, all_keys = a.keys.at(t);
  const int parts = static_cast<int>(operation::MixerStep::parts_of(all_keys));
  if (slot < 0 || part >= parts) return wait_for_kernels_before();
  const bool alone = parts == 1;
  const int* const table = a.tables + slot * a.table_row;
  const float* const rope = a.rope + static_cast<std::int64_t>(t) * p;

  float* const queries = reinterpret_cast<float*>(shared + a.ring_keys * 2 * p * sizeof(T));
  float* const gates = queries + heads * p;
  float* const own_key = gates + heads * p;
  float* const own_value = own_key + p;
  float* const own_state = own_value + p;
  float* const records = own_state + 2 * p;
  float* const behind_records = records + (in_tiles ? heads : 1) * warps * (p + record_tail);
  bf16* const split_queries = reinterpret_cast<bf16*>(behind_records);  // in tiles
  float* const own_scores = behind_records + (in_tiles ? heads * p : 0);

  const auto begin_of = [&](int of_part) {
    return alone ? of_part * all_keys : static_cast<int>(operation::MixerStep::part_begin(all_keys, of_part));
  };
  const Stages keys{a.cache,
                    table,
                    m,
                    begin_of(part),
                    begin_of(part + 1),
                    (head_count + heads - 1) / heads,
                    reinterpret_cast<T*>(shared),
                    filled};
  keys.begin_fetching();
  // Of several parts only the last needs the own key; of few blocks each makes it while its keys are on their way.
  const bool early = alone || a.at_rest;
  float* const state = a.states ? a.states + slot * a.state_slot + key_head * a.state_head : nullptr;
  const bool restarts = restarts_at(a, t);
  // This thread makes channels own and own + P/2 of the token's key and value. Reads of one stretch come together: many take as
  // long as one.
  const int own = (thread + threads / 2) % threads;
  const bool owns = own < half;
  Resting resting;
  if (early && owns) resting.read(a, key_head, own, half, rope, state, restarts);
  // Pages for the token's own key and value. At rest, what is read here costs no time; behind the wait, about a microsecond each.
  const int pages[2] = {a.cache.page(table, a.keys.recent_entry(t)),
                        a.cache.page(table, a.keys.dilated_entry(t))};
  const int only_head = a.heads[first_head];
  float only_cosine = 0, only_sine = 0;
  if (heads == 1 && thread < half) only_cosine = rope[thread], only_sine = rope[half + thread];
  const int only_query = only_head % a.q.heads, own_k = key_head % a.k.heads;
  if (a.at_rest) wait_for_kernels_before();

  const auto head_of = [&](int h) { return heads == 1 ? only_head : a.heads[first_head + h]; };
  const auto make_queries = [&](int begin, int count) {
    const float scale = log2_e * rsqrtf(static_cast<float>(p));
#pragma unroll 1
    for (int index = thread; index < count * half; index += threads) {
      const int h = heads == 1 ? 0 : index / half, i = index - h * half, j = i + half;
      const int head = head_of(begin + h);
      const T* const q = a.q.at(b, heads == 1 ? only_query : head % a.q.heads);
      const float x = to_float(q[i]), y = to_float(q[j]);
      const float cosine = heads == 1 ? only_cosine : rope[i], sine = heads == 1 ? only_sine : rope[half + i];
      float gate_i = 0, gate_j = 0;
      if (a.o.data) gate_i = to_float(a.o.at(b, head)[i]), gate_j = to_float(a.o.at(b, head)[j]);
      const float of_i = (x * cosine - y * sine) * scale, of_j = (y * cosine + x * sine) * scale;
      queries[h * p + i] = of_i, queries[h * p + j] = of_j;
      if constexpr (in_tiles) {
        const std::uint32_t both_i = halves_of(of_i), both_j = halves_of(of_j);
        auto* const high = reinterpret_cast<std::uint16_t*>(split_queries + 2 * h * p);
        high[i] = static_cast<std::uint16_t>(both_i), high[p + i] = static_cast<std::uint16_t>(both_i >> 16);
        high[j] = static_cast<std::uint16_t>(both_j), high[p + j] = static_cast<std::uint16_t>(both_j >> 16);
      }
      gates[h * p + i] = a.o.data ? sigmoid(gate_i) : 1.0f;
      gates[h * p + j] = a.o.data ? sigmoid(gate_j) : 1.0f;
    }
  };
  // The token's own key and value, rounded as the cache has them, and their state; by other threads than the first queries.
  const auto make_own = [&] {
    if (!owns) return;
    const int i = own, j = own + half;
    const T* const k = a.k.at(b, own_k);
    const T* const v = a.v.at(b, key_head);
    const float of_k[2] = {to_float(k[i]), to_float(k[j])}, of_v[2] = {to_float(v[i]), to_float(v[j])};
    float of_f[2] = {};
    if (a.f.data) of_f[0] = to_float(a.f.at(b, key_head)[i]), of_f[1] = to_float(a.f.at(b, key_head)[j]);
    float new_k[2], new_v[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      new_k[c] = of_k[c], new_v[c] = of_v[c];
      if (a.f.data == nullptr) continue;
      const float g = sigmoid(of_f[c] + resting.bias[c]);
      new_k[c] = recur(g, resting.state[0][c], of_k[c]);
      new_v[c] = recur(g, resting.state[1][c], of_v[c]);
    }
    own_state[i] = new_k[0], own_state[j] = new_k[1], own_state[p + i] = new_v[0],
    own_state[p + j] = new_v[1];
    own_key[i] = to_float(from_float<T>(new_k[0] * resting.cosine - new_k[1] * resting.sine));
    own_key[j] = to_float(from_float<T>(new_k[1] * resting.cosine + new_k[0] * resting.sine));
    own_value[i] = to_float(from_float<T>(new_v[0]));
    own_value[j] = to_float(from_float<T>(new_v[1]));
  };
  // By the threads that made it.
  const auto write_state = [&] {
    if (state == nullptr || (a.keeps_state != nullptr && a.keeps_state[m] == 0) || !owns) return;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      state[c * a.state_part + own] = own_state[c * p + own];
      state[c * a.state_part + own + half] = own_state[c * p + own + half];
    }
  };
  // Between two __syncthreads: a warp takes a head.
  const auto make_own_scores = [&](int count) {
    for (int h = thread / 32; h < count; h += warps) {
      float dot = 0;
      for (int i = thread % 32; i < p; i += 32) dot = fmaf(queries[h * p + i], own_key[i], dot);
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) dot += __shfl_xor_sync(~0u, dot, offset);
      if (thread % 32 == 0) own_scores[h] = dot;
    }
  };
  const auto partial_of = [&](int h, int of_part) {
    return a.partials +
           ((static_cast<std::int64_t>(b) * a.all_heads + first_head + h) * a.parts + of_part) * (p + 2);
  };
  const auto own_softmax = [&](int h, int i) { return Softmax{own_scores[h], 1, own_value[i]}; };
  const auto write_out = [&](int begin, int h, int i, const Softmax& all) {
    a.z.at(b, head_of(begin + h))[i] = from_float<T>(all.value / all.sum * gates[h * p + i]);
  };

  // Repeats where more than `heads` heads share the key.
  for (int begin = 0, n = 0; begin < head_count; begin += heads) {
    const int count = min(heads, head_count - begin);
    make_queries(begin, count);
    if (early && begin == 0) make_own();
    __syncthreads();
    if (early) make_own_scores(count);
    const auto finish = [&](int h, int i, const auto& softmax) {
      if (alone) return write_out(begin, h, i, softmax(own_softmax(h, i)));
      const Softmax all = softmax(Softmax{minus_infinity(), 0, 0});
      float* const partial = partial_of(begin + h, part);
      partial[i] = all.value;
      if (i == 0) partial[p] = all.largest, partial[p + 1] = all.sum;
    };
    if constexpr (in_tiles) {
      attend<lanes, heads>(keys, n, count, split_queries, records, finish);
    } else {
      attend<T, channels, lanes, heads>(keys, n, count, queries, records, finish);
    }
  }

  if (!alone) {
    __threadfence();
    __syncthreads();
    if (thread == 0) {
      int* const arrived = a.arrivals + b * static_cast<int>(gridDim.x) + m;
      last = atomicAdd(arrived, 1) == parts - 1;
      if (last) *arrived = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    if (!early) {
      if (owns) resting.read(a, key_head, own, half, rope, state, restarts);
      make_own();
    }
    for (int begin = 0; begin < head_count; begin += heads) {
      const int count = min(heads, head_count - begin);
      if (!early || head_count > heads) {
        make_queries(begin, count);
        __syncthreads();
        make_own_scores(count);
        __syncthreads();
      }
      for (int h = 0; h < count; ++h) {
#pragma unroll 1
        for (int i = thread; i < p; i += threads) {
          Softmax all = own_softmax(h, i);
          const float* more = partial_of(begin + h, 0);
          for (int left = parts; left > 0; left -= together) {
            Softmax some[together];
#pragma unroll
            for (int j = 0; j < together; ++j, more += p + 2) {
              if (j < left) some[j] = {__ldcg(more + p), __ldcg(more + p + 1), __ldcg(more + i)};
            }
#pragma unroll
            for (int j = 0; j < together; ++j) {
              if (j < left) all = merge(all, some[j]);
            }
          }
          write_out(begin, h, i, all);
        }
      }
      __syncthreads();
    }
  }

  write_state();
#pragma unroll
  for (int kind = 0; kind < 2; ++kind) {
    if (pages[kind] < 0) continue;
    const int entry = kind == 0 ? a.keys.recent_entry(t) : a.keys.dilated_entry(t);
    T* const key = a.cache.key_in_page(pages[kind], entry, m);
    T* const value = key + a.cache.entries * p;
#pragma unroll 1
    for (int i = thread; i < p; i += threads) {
      key[i] = from_float<T>(own_key[i]);
      value[i] = from_float<T>(own_value[i]);
    }
  }
}

template <typename T, int channels, int lanes, int heads, bool in_tiles = false>
void launch(StepArguments<T> a, const operation::MixerStep& call, int multiprocessors, cudaStream_t stream) {
  using Stages = KeyStages<T, channels, lanes, in_tiles>;
  const std::int64_t entries = in_tiles ? keys_of_tile : call.cache.entries;
  a.ring_keys = static_cast<int>(std::min<std::int64_t>(Stages::stages * Stages::stage_keys,
                                                        blocks_of(call.most_keys, entries) * entries));
  const auto shared = static_cast<std::size_t>(a.ring_keys * 2 * a.head_dim) * sizeof(T) +
                      static_cast<std::size_t>(shared_floats(heads, a.head_dim, in_tiles)) * sizeof(float);
  const auto kernel = mixer_step_kernel<T, channels, lanes, heads, in_tiles>;
  if (shared > (48u << 10)) {
    check_cuda(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        call.name);
  }
  const dim3 grid(static_cast<unsigned>(call.cache.heads.size(0)), static_cast<unsigned>(call.z.size(0)),
                  static_cast<unsigned>(a.parts));
  // Early, where the caller allows it: caches of one part always; parts of long ones if all blocks run at once, else most
  // would read in vain.
  a.at_rest = call.at_rest &&
              (a.parts == 1 || grid.x * grid.y * grid.z <=
                                   static_cast<unsigned>(multiprocessors) * blocks_of_sm(heads, in_tiles));
  launch_overlapped(kernel, grid, threads, shared, stream, call.name, a);
}

/// For the most heads that one key has.
template <typename T, int channels, int lanes>
void launch_heads(const StepArguments<T>& a, const operation::MixerStep& call, int multiprocessors,
                  cudaStream_t stream) {
  const auto sharing = call.z.size(1) / call.v.size(1);
  if constexpr (std::is_same_v<T, bf16> && channels == 8 && (lanes == 8 || lanes == 16)) {
    // Of few keys, as a large D keeps without a window, many sequences' steps are shorter without tiles. The pattern alone
    // decides, so that a sequence's bits are its own.
    const bool few_keys = call.cache.pattern.dilation >= 32 && call.cache.pattern.window == 0;
    if (a.head_dim == channels * lanes && sharing <= 4 && !few_keys) {
      if (sharing == 1) return launch<T, channels, lanes, 1, true>(a, call, multiprocessors, stream);
      return launch<T, channels, lanes, 4, true>(a, call, multiprocessors, stream);
    }
  }
  if (sharing == 1) return launch<T, channels, lanes, 1>(a, call, multiprocessors, stream);
  if (sharing <= 4) return launch<T, channels, lanes, 4>(a, call, multiprocessors, stream);
  launch<T, channels, lanes, most_heads>(a, call, multiprocessors, stream);
}

/// Lanes of a head of P channels: a power of two.
template <typename T>
void launch_lanes(const StepArguments<T>& a, const operation::MixerStep& call, int multiprocessors,
                  cudaStream_t stream) {
  const int p = a.head_dim;
  if (p % 8 == 0) {
    if (p <= 32) return launch_heads<T, 8, 4>(a, call, multiprocessors, stream);
    if (p <= 64) return launch_heads<T, 8, 8>(a, call, multiprocessors, stream);
    if (p <= 128) return launch_heads<T, 8, 16>(a, call, multiprocessors, stream);
    return launch_heads<T, 8, 32>(a, call, multiprocessors, stream);
  }
  launch_heads<T, 2, 32>(a, call, multiprocessors, stream);
}

}  // namespace

void CudaOps::compute(const operation::MixerStep& call) {
  const std::int64_t batch = call.z.size(0), p = call.z.size(2);
  if (batch == 0) return;
  require(p <= 256 && (p % 8 == 0 || p <= 64), "{}: heads of {} channels on a GPU", call.name, p);
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    const auto integers = [](const Tensor& x) { return x.empty() ? nullptr : x.as<std::int32_t>(); };
    const bool attends = call.attends();
    StepArguments<T> a{
        .z = step_rows<T>(call.z),
        .o = step_rows<T>(call.o),
        .q = step_rows<T>(call.q),
        .k = step_rows<T>(call.k),
        .v = step_rows<T>(call.v),
        .f = step_rows<T>(call.f),
        .gate_bias = call.gate_bias.empty() ? nullptr : call.gate_bias.as<float>(),
        .states = call.gated() ? call.states.as<float>() : nullptr,
        .state_slot = call.gated() ? call.states.stride(0) : 0,
        .state_part = call.gated() ? call.states.stride(1) : 0,
        .state_head = call.gated() ? call.states.stride(2) : 0,
        .slots = call.slots.as<std::int32_t>(),
        .positions = call.positions.as<std::int32_t>(),
        .rope = attends ? call.rope.as<float>() : nullptr,
        .cache = CacheRows<T>(call.cache, attends ? call.tables.size(1) : 0, p),
        .keys = KeyCount(attends ? call.cache.layout() : CacheLayout()),
        .tables = integers(call.tables),
        .heads = integers(call.heads),
        .first_heads = integers(call.first_heads),
        .keeps_state = integers(call.keeps_state),
        .table_row = attends ? call.tables.stride(0) : 0,
        .partials = call.partials.empty() ? nullptr : call.partials.as<float>(),
        .arrivals = call.arrivals.empty() ? nullptr : call.arrivals.as<std::int32_t>(),
        .all_heads = attends ? static_cast<int>(call.heads.size(0)) : 0,
        .parts = static_cast<int>(std::max<std::int64_t>(1, operation::MixerStep::parts(call.most_keys))),
        .chunk = static_cast<int>(call.chunk),
        .head_dim = static_cast<int>(p),
        .ring_keys = 0,
        .at_rest = false};
    if (!attends) {
      launch_overlapped(recurrence_step_kernel<T>,
                        dim3(static_cast<unsigned>(call.v.size(1)), static_cast<unsigned>(batch)), threads, 0,
                        stream_, call.name, a);
    } else {
      require(a.parts == 1 || (call.partials.rank() == 1 && call.arrivals.rank() == 1 &&
                               call.partials.size(0) >= operation::MixerStep::partial_floats(
                                                            batch, call.heads.size(0), p, call.most_keys) &&
                               call.arrivals.size(0) >= batch * call.cache.heads.size(0)),
              "{}: no room for the parts of {} keys", call.name, call.most_keys);
      launch_lanes<T>(a, call, multiprocessors_, stream_);
    }
  });
  check_launch(call.name);
}

}  // namespace ratplus::cuda
