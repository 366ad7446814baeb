// The step of a mixer: one token of each sequence (docs/model.md, section 19).
//
// A block takes one head of keys of one sequence and, where the sequence has many keys, a part of them; the block that comes
// last adds the parts in their order, beginning with the token's own key, and is the only one that writes the state and the
// cache. Which part has which keys, and every order of sums, depends on the sequence's own number of keys alone.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cuda/cache_rows.cuh"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.cuh"

namespace ratplus::cuda {
namespace {

constexpr int threads = 128;
constexpr int most_heads = 8;  // of a key, that are computed together
constexpr int unrolled = 4;    // keys that a group of lanes loads at once

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

template <typename T>
struct StepArguments {
  StepRows<T> z, o, q, k, v, f;
  const float* gate_bias;  ///< [Hk, P], or null
  float* states;
  std::int64_t state_slot, state_part, state_head;
  const int *slots, *positions;
  const float* rope;
  CacheRows<T> cache;
  CacheLayout layout;
  const int *tables, *heads, *first_heads, *keeps_state;
  std::int64_t table_row;
  float* partials;  ///< [B, heads of the call, parts, P + 2]: weights' maximum, their sum, values
  int* arrivals;    ///< [B, M]
  int all_heads, parts, chunk, head_dim;
};

/// The keys of one sequence as its query finds them, by 32-bit numbers.
struct KeyPlaces {
  __device__ __forceinline__ KeyPlaces(const CacheLayout& layout, int t) {
    const auto runs = layout.runs(t);
    sinks = static_cast<int>(runs.sinks), dilated = static_cast<int>(runs.dilated);
    keys = static_cast<int>(runs.keys());
    ring = static_cast<int>(layout.sinks), ring_size = static_cast<int>(layout.window);
    behind = ring + ring_size;
    ring_first = runs.window > 0 ? static_cast<int>((runs.window_begin - layout.sinks) % layout.window) : 0;
  }
  __device__ __forceinline__ int entry(int j) const {
    if (j < sinks) return j;
    j -= sinks;
    if (j < dilated) return behind + j;
    j += ring_first - dilated;
    return ring + (j < ring_size ? j : j - ring_size);
  }
  int sinks, dilated, keys, ring, ring_size, behind, ring_first;
};

/// k~ or v~ of this token: g state + (1 - g) x.
template <typename T>
__device__ __forceinline__ float recur(const StepArguments<T>& a, int b, int head, int part, bool restarts,
                                       float x, int i, const float* state) {
  if (a.f.data == nullptr) return x;
  const float bias = a.gate_bias ? a.gate_bias[head * a.head_dim + i] : 0.0f;
  const float g = sigmoid(to_float(a.f.at(b, head)[i]) + bias);
  const float before = restarts ? 0.0f : state[part * a.state_part + i];
  return x + g * (before - x);
}

template <typename T>
__device__ __forceinline__ bool restarts_at(const StepArguments<T>& a, int t) {
  return a.chunk > 0 ? t % a.chunk == 0 : t == 0;
}

template <typename T>
__device__ __forceinline__ void write_out(const StepArguments<T>& a, int b, int h, int i, float value) {
  if (a.o.data) value *= sigmoid(to_float(a.o.at(b, h)[i]));
  a.z.at(b, h)[i] = from_float<T>(value);
}

/// Without attention: z = v~ sigmoid(o). Block (head, b).
template <typename T>
__global__ void __launch_bounds__(threads) recurrence_step_kernel(StepArguments<T> a) {
  const int head = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y), slot = a.slots[b];
  if (slot < 0) return;
  const int t = a.positions[b];
  float* state = a.states ? a.states + slot * a.state_slot + head * a.state_head : nullptr;
  for (int i = static_cast<int>(threadIdx.x); i < a.head_dim; i += threads) {
    const float v = recur(a, b, head, 1, restarts_at(a, t), to_float(a.v.at(b, head)[i]), i, state);
    if (state) state[a.state_part + i] = v;
    write_out(a, b, head, i, v);
  }
}

__device__ __forceinline__ float minus_infinity() {
  return __int_as_float(0xff800000);
}

/// A softmax over some keys: weights 2^(score - largest), their sum, and the values that they weigh.
struct Weighted {
  float largest, sum;
};

/// largest and sum of two, and the factors of their values.
__device__ __forceinline__ Weighted merge(Weighted x, Weighted y, float& of_x, float& of_y) {
  const float largest = fmaxf(x.largest, y.largest);
  of_x = x.largest == minus_infinity() ? 0.0f : exp2_fast(x.largest - largest);
  of_y = y.largest == minus_infinity() ? 0.0f : exp2_fast(y.largest - largest);
  return {largest, x.sum * of_x + y.sum * of_y};
}

/// Attention of the heads [begin, begin + count) of key m over keys [first, end) of the cache, by groups of `lanes` lanes,
/// of which each holds `channels` channels; merged into shared[h] (P values, largest, sum each).
template <typename T, int channels, int lanes, int heads>
__device__ void attend(const StepArguments<T>& a, const KeyPlaces& places, const int* table, int m, int count,
                       const float* queries, int first, int end, float* groups_memory, float* result) {
  constexpr int groups = threads / lanes;
  const int lane = static_cast<int>(threadIdx.x) % lanes, group = static_cast<int>(threadIdx.x) / lanes;
  const int channel = lane * channels, p = a.head_dim;
  const bool active = channel < p;
  float query[heads][channels], values[heads][channels], largest[heads], sum[heads];
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    largest[h] = minus_infinity(), sum[h] = 0;
#pragma unroll
    for (int c = 0; c < channels; ++c) {
      query[h][c] = active && h < count ? queries[h * p + channel + c] : 0.0f;
      values[h][c] = 0;
    }
  }
  for (int base = first; base < end; base += groups * unrolled) {
    Pack<T, channels> key[unrolled], value[unrolled];
    bool there[unrolled];
#pragma unroll
    for (int u = 0; u < unrolled; ++u) {
      const int j = base + u * groups + group;
      there[u] = j < end;
      if (there[u] && active) {
        const int entry = places.entry(j);
        const T* row = a.cache.key(table, entry, m) + channel;
        key[u] = load<channels>(row);
        value[u] = load<channels>(row + a.cache.entries * p);
      }
    }
#pragma unroll
    for (int h = 0; h < heads; ++h) {
      if (h >= count) break;
      float score[unrolled], most = largest[h];
#pragma unroll
      for (int u = 0; u < unrolled; ++u) {
        float dot = 0;
        if (there[u] && active) {
#pragma unroll
          for (int c = 0; c < channels; ++c) dot = fmaf(query[h][c], key[u][c], dot);
        }
#pragma unroll
        for (int offset = lanes / 2; offset > 0; offset /= 2) dot += __shfl_xor_sync(~0u, dot, offset);
        score[u] = there[u] ? dot : minus_infinity();
        most = fmaxf(most, score[u]);
      }
      if (most == minus_infinity()) continue;
      const float shrink = exp2_fast(largest[h] - most);  // of minus infinity: 0
      largest[h] = most;
      sum[h] *= shrink;
#pragma unroll
      for (int c = 0; c < channels; ++c) values[h][c] *= shrink;
#pragma unroll
      for (int u = 0; u < unrolled; ++u) {
        if (!there[u]) continue;
        const float weight = exp2_fast(score[u] - most);
        sum[h] += weight;
        if (active) {
#pragma unroll
          for (int c = 0; c < channels; ++c) values[h][c] = fmaf(weight, value[u][c], values[h][c]);
        }
      }
    }
  }
  // Groups in their order.
  float* const mine = groups_memory + group * (p + 2);
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    if (h >= count) break;
    __syncthreads();
    if (active) {
#pragma unroll
      for (int c = 0; c < channels; ++c) mine[channel + c] = values[h][c];
    }
    if (lane == 0) mine[p] = largest[h], mine[p + 1] = sum[h];
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < p; i += threads) {
      Weighted all{minus_infinity(), 0};
      float total = 0;
      for (int g = 0; g < groups; ++g) {
        const float* of_group = groups_memory + g * (p + 2);
        float of_all, of_new;
        all = merge(all, {of_group[p], of_group[p + 1]}, of_all, of_new);
        total = total * of_all + of_group[i] * of_new;
      }
      result[h * (p + 2) + i] = total;
      if (i == 0) result[h * (p + 2) + p] = all.largest, result[h * (p + 2) + p + 1] = all.sum;
    }
  }
  __syncthreads();
}

/// Shared memory: queries [heads, P]; results [heads, P + 2]; groups [groups, P + 2]; k~ rotated and v~ [2, P].
constexpr int shared_floats(int heads, int groups, int p) {
  return heads * p + heads * (p + 2) + groups * (p + 2) + 2 * p;
}

/// Block (m, b, part).
template <typename T, int channels, int lanes, int heads>
__global__ void __launch_bounds__(threads) mixer_step_kernel(StepArguments<T> a) {
  const int m = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y),
            part = static_cast<int>(blockIdx.z);
  const int slot = a.slots[b];
  if (slot < 0) return;
  const int t = a.positions[b], p = a.head_dim, half = p / 2;
  const KeyPlaces places(a.layout, t);
  const int part_size = static_cast<int>(operation::MixerStep::part_of(places.keys));
  const int parts = places.keys <= part_size ? 1 : (places.keys + part_size - 1) / part_size;
  if (part >= parts) return;
  const int first_head = a.first_heads[m], head_count = a.first_heads[m + 1] - first_head;
  const int* table = a.tables + slot * a.table_row;
  const float* rope = a.rope + static_cast<std::int64_t>(t) * p;

  extern __shared__ float shared[];
  float* const queries = shared;
  float* const result = queries + heads * p;
  float* const groups_memory = result + heads * (p + 2);
  float* const own_key = groups_memory + threads / lanes * (p + 2);
  float* const own_value = own_key + p;
  __shared__ bool last;

  // Once for each chunk of heads that share the key; nearly always there is one.
  const float scale = log2_e * rsqrtf(static_cast<float>(p));
  const auto make_queries = [&](int begin, int count) {
    for (int index = static_cast<int>(threadIdx.x); index < count * half; index += threads) {
      const int h = index / half, i = index % half;
      const T* q = a.q.at(b, a.heads[first_head + begin + h] % a.q.heads);
      const float x = to_float(q[i]), y = to_float(q[i + half]), cosine = rope[i], sine = rope[half + i];
      queries[h * p + i] = (x * cosine - y * sine) * scale;
      queries[h * p + i + half] = (y * cosine + x * sine) * scale;
    }
    __syncthreads();
  };
  const auto partial_of = [&](int h, int of_part) {
    return a.partials +
           ((static_cast<std::int64_t>(b) * a.all_heads + first_head + h) * a.parts + of_part) * (p + 2);
  };
  const int begin_key = part * part_size, end_key = min(begin_key + part_size, places.keys);
  if (parts > 1) {
    for (int begin = 0; begin < head_count; begin += heads) {
      const int count = min(heads, head_count - begin);
      make_queries(begin, count);
      attend<T, channels, lanes, heads>(a, places, table, m, count, queries, begin_key, end_key,
                                        groups_memory, result);
      for (int index = static_cast<int>(threadIdx.x); index < count * (p + 2); index += threads)
        partial_of(begin + index / (p + 2), part)[index % (p + 2)] = result[index];
      __syncthreads();
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      int* const arrived = a.arrivals + b * static_cast<int>(gridDim.x) + m;
      last = atomicAdd(arrived, 1) == parts - 1;
      if (last) *arrived = 0;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
  }

  // The token's own key and value, rounded as the cache has them.
  const int key_head = a.cache.heads[m];
  float* const state = a.states ? a.states + slot * a.state_slot + key_head * a.state_head : nullptr;
  const bool restarts = restarts_at(a, t);
  const bool keeps = state && (a.keeps_state == nullptr || a.keeps_state[m] != 0);
  const T* const k = a.k.at(b, key_head % a.k.heads);
  const T* const v = a.v.at(b, key_head);
  for (int i = static_cast<int>(threadIdx.x); i < half; i += threads) {
    const int j = i + half;
    const float k0 = recur(a, b, key_head, 0, restarts, to_float(k[i]), i, state);
    const float k1 = recur(a, b, key_head, 0, restarts, to_float(k[j]), j, state);
    const float v0 = recur(a, b, key_head, 1, restarts, to_float(v[i]), i, state);
    const float v1 = recur(a, b, key_head, 1, restarts, to_float(v[j]), j, state);
    if (keeps) {
      state[i] = k0, state[j] = k1;
      state[a.state_part + i] = v0, state[a.state_part + j] = v1;
    }
    own_key[i] = to_float(from_float<T>(k0 * rope[i] - k1 * rope[half + i]));
    own_key[j] = to_float(from_float<T>(k1 * rope[i] + k0 * rope[half + i]));
    own_value[i] = to_float(from_float<T>(v0));
    own_value[j] = to_float(from_float<T>(v1));
  }
  __syncthreads();

  for (int begin = 0; begin < head_count; begin += heads) {
    const int count = min(heads, head_count - begin);
    make_queries(begin, count);
    if (parts == 1) {
      attend<T, channels, lanes, heads>(a, places, table, m, count, queries, 0, places.keys, groups_memory,
                                        result);
    }
    for (int h = 0; h < count; ++h) {
      // Every thread computes the same score, in one order.
      float own = 0;
      for (int i = 0; i < p; ++i) own = fmaf(queries[h * p + i], own_key[i], own);
      for (int i = static_cast<int>(threadIdx.x); i < p; i += threads) {
        Weighted all{own, 1};
        float total = own_value[i];
        for (int of_part = 0; of_part < parts; ++of_part) {
          const float* more = parts == 1 ? result + h * (p + 2) : partial_of(begin + h, of_part);
          float of_all, of_new;
          all = merge(all, {more[p], more[p + 1]}, of_all, of_new);
          total = total * of_all + more[i] * of_new;
        }
        write_out(a, b, a.heads[first_head + begin + h], i, total / all.sum);
      }
    }
    __syncthreads();
  }

  const std::int64_t entries[2] = {a.layout.recent_entry(t), a.layout.dilated_entry(t)};
  for (const std::int64_t entry : entries) {
    if (!a.cache.has(table, entry)) continue;
    T* const key = a.cache.key(table, entry, m);
    T* const value = a.cache.value(table, entry, m);
    for (int i = static_cast<int>(threadIdx.x); i < p; i += threads) {
      key[i] = from_float<T>(own_key[i]);
      value[i] = from_float<T>(own_value[i]);
    }
  }
}

template <typename T, int channels, int lanes, int heads>
void launch(const StepArguments<T>& a, const operation::MixerStep& call, cudaStream_t stream) {
  const auto shared =
      static_cast<std::size_t>(shared_floats(heads, threads / lanes, a.head_dim)) * sizeof(float);
  const auto kernel = mixer_step_kernel<T, channels, lanes, heads>;
  if (shared > (48u << 10)) {
    check_cuda(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        call.name);
  }
  const dim3 grid(static_cast<unsigned>(call.cache.heads.size(0)), static_cast<unsigned>(call.z.size(0)),
                  static_cast<unsigned>(a.parts));
  kernel<<<grid, threads, shared, stream>>>(a);
}

/// For the most heads that one key has.
template <typename T, int channels, int lanes>
void launch_heads(const StepArguments<T>& a, const operation::MixerStep& call, cudaStream_t stream) {
  const auto sharing = call.z.size(1) / call.v.size(1);
  if (sharing == 1) return launch<T, channels, lanes, 1>(a, call, stream);
  if (sharing <= 4) return launch<T, channels, lanes, 4>(a, call, stream);
  launch<T, channels, lanes, most_heads>(a, call, stream);
}

/// Lanes of a head of P channels: a power of two.
template <typename T>
void launch_lanes(const StepArguments<T>& a, const operation::MixerStep& call, cudaStream_t stream) {
  const int p = a.head_dim;
  if (p % 8 == 0) {
    if (p <= 32) return launch_heads<T, 8, 4>(a, call, stream);
    if (p <= 64) return launch_heads<T, 8, 8>(a, call, stream);
    if (p <= 128) return launch_heads<T, 8, 16>(a, call, stream);
    return launch_heads<T, 8, 32>(a, call, stream);
  }
  launch_heads<T, 2, 32>(a, call, stream);
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
        .layout = attends ? call.cache.layout() : CacheLayout(),
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
        .head_dim = static_cast<int>(p)};
    if (!attends) {
      recurrence_step_kernel<T><<<dim3(static_cast<unsigned>(call.v.size(1)), static_cast<unsigned>(batch)),
                                  threads, 0, stream_>>>(a);
    } else {
      require(a.parts == 1 || (call.partials.rank() == 1 && call.arrivals.rank() == 1 &&
                               call.partials.size(0) >= operation::MixerStep::partial_floats(
                                                            batch, call.heads.size(0), p, call.most_keys) &&
                               call.arrivals.size(0) >= batch * call.cache.heads.size(0)),
              "{}: no room for the parts of {} keys", call.name, call.most_keys);
      launch_lanes<T>(a, call, stream_);
    }
  });
  check_launch(call.name);
}

}  // namespace ratplus::cuda
