// The step of a mixer: one token of each sequence (docs/model.md, section 19).
//
// A block takes one head of keys of one sequence and, where the sequence has many keys, a part of them; the block that comes
// last adds the parts in their order, beginning with the token's own key, and is the only one that writes the state and the
// cache. Keys are taken in the order of their entries. Which part has which keys, and every order of sums, depends on the
// sequence's own number of keys alone.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/cache_rows.cuh"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/pattern_attention_tiles.cuh"

namespace ratplus::cuda {
namespace {

constexpr int threads = 128, warps = threads / 32;
constexpr int most_heads = 8;     // of a key, that are computed together
constexpr int unrolled = 4;       // keys that a group of lanes reads at once
constexpr int together = 8;       // parts that a thread reads at once
constexpr int keys_of_tile = 16;  // of mma.sync m16n8k16
constexpr int record_tail = 4;    // floats behind a record's channels, which keep the next one aligned

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

__device__ __forceinline__ float minus_infinity() {
  return __int_as_float(0xff800000);
}

/// Factor of weights relative to `largest` where they become relative to `most`; of none, 0.
__device__ __forceinline__ float rescale(float largest, float most) {
  return largest == minus_infinity() ? 0.0f : exp2_fast(largest - most);
}

/// A softmax over some keys, as one channel has it: the largest score, and the sums of the weights 2^(score - largest) and of
/// the values that they weigh.
struct Softmax {
  float largest, sum, value;
};

__device__ __forceinline__ Softmax merge(Softmax x, Softmax y) {
  const float most = fmaxf(x.largest, y.largest);
  const float of_x = rescale(x.largest, most), of_y = rescale(y.largest, most);
  return {most, x.sum * of_x + y.sum * of_y, x.value * of_x + y.value * of_y};
}

/// Keys [begin, end) of one head, `walks` times over, on their way through shared memory: `stage_keys` at a time in each of
/// `stages` places. A stage holds them as their pages do, of each page the keys of its entries, then their values. A group of
/// `lanes` lanes of `channels` channels each reads a key; in tiles, a warp reads keys_of_tile keys.
template <typename T, int channels, int lanes, bool in_tiles>
struct KeyStages {
  static constexpr int groups = threads / lanes,
                       stage_keys = in_tiles ? warps * keys_of_tile : groups * unrolled,
                       stages = sizeof(T) == 2 && !in_tiles ? 3 : 2;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  static constexpr bool bulk = channels == 8;  // rows of a multiple of 16 bytes
#else
  static constexpr bool bulk = false;
#endif

  __device__ __forceinline__ int stages_of_walk() const {
    return (end - begin + stage_keys - 1) / stage_keys;
  }
  __device__ __forceinline__ T* stage(int n) const {
    return memory + n % stages * (stage_keys * 2 * cache.head_dim);
  }
  /// Elements from a stage's begin to its key j; its value comes `entries` rows behind it.
  __device__ __forceinline__ int offset(int j) const {
    return (j + (j & -cache.entries)) * cache.head_dim;
  }

  /// Begins to copy stage n of all walks; no thread reads what was in its place.
  __device__ __forceinline__ void fetch(int n) const {
    const int of_walk = stages_of_walk(), thread = static_cast<int>(threadIdx.x), p = cache.head_dim;
    const int first = n < of_walk * walks ? begin + (walks == 1 ? n : n % of_walk) * stage_keys : end;
    const int keys = min(stage_keys, end - first);
    T* const to = stage(n);
    if constexpr (bulk) {
      // A lane copies a page.
      if (thread >= 32 || keys <= 0) return;
      const std::uint32_t barrier = shared_address(filled + n % stages);
      const int row_bytes = p * static_cast<int>(sizeof(T)), j = thread * cache.entries;
      if (thread == 0) expect_bytes(barrier, 2 * keys * row_bytes);
      __syncwarp();
      if (j >= keys) return;
      const T* const page = cache.key(table, first + j, m);
      const int rows = min(cache.entries, keys - j);
      const bool whole = rows == cache.entries;
      copy_bulk(to + 2 * j * p, page, (whole ? 2 : 1) * rows * row_bytes, barrier);
      if (!whole) {
        copy_bulk(to + (2 * j + cache.entries) * p, page + cache.entries * p, rows * row_bytes, barrier);
      }
    } else {
      const int channel = thread % lanes * channels;
#pragma unroll
      for (int j = thread / lanes; j < stage_keys; j += groups) {
        if (j >= keys || channel >= p) continue;
        const T* const key = cache.key(table, first + j, m) + channel;
        T* const place = to + offset(j) + channel;
        copy_async<channels * sizeof(T)>(place, key);
        copy_async<channels * sizeof(T)>(place + cache.entries * p, key + cache.entries * p);
      }
      commit_copies();
    }
  }
  __device__ __forceinline__ void begin_fetching() const {
#pragma unroll 1
    for (int n = 0; n < stages; ++n) fetch(n);
  }
  /// Makes stage n ready for all threads, and its forerunner's place ready for another; every thread calls it for every n.
  __device__ __forceinline__ void wait_for(int n) const {
    if constexpr (bulk) {
      wait_for_phase(shared_address(filled + n % stages), n / stages % 2);
    } else {
      wait_for_copies_but<stages - 2>();
    }
    __syncthreads();
    if (n > 0) fetch(n - 1 + stages);
  }

  const CacheRows<T>& cache;
  const int* table;
  int m, begin, end, walks;
  T* memory;
  std::uint64_t* filled;  ///< [stages]: barriers
};

/// Attention of `count` heads over one walk, from its stage n on, which becomes the next walk's. Calls
/// finish(h, i, softmax) for each head and channel; softmax(own) merges what it is given with all keys of the walk.
template <typename T, int channels, int lanes, int heads, typename Finish>
__device__ __forceinline__ void attend(const KeyStages<T, channels, lanes, false>& keys, int& n, int count,
                                       const float* queries, float* records, const Finish& finish) {
  using Stages = KeyStages<T, channels, lanes, false>;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % lanes, group = thread / lanes;
  const int channel = lane * channels, p = keys.cache.head_dim;
  const bool active = channel < p;
  float values[heads][channels], largest[heads], sum[heads];
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    largest[h] = minus_infinity(), sum[h] = 0;
#pragma unroll
    for (int c = 0; c < channels; ++c) values[h][c] = 0;
  }
#pragma unroll 1
  for (int first = keys.begin; first < keys.end; first += Stages::stage_keys, ++n) {
    keys.wait_for(n);
    const T* const stage = keys.stage(n) + channel;
    const int value_rows = keys.cache.entries * p;
    bool there[unrolled];
    float scores[heads][unrolled];
    {
      Pack<T, channels> key[unrolled];
#pragma unroll
      for (int u = 0; u < unrolled; ++u) {
        const int j = u * Stages::groups + group;
        there[u] = first + j < keys.end;
        if (there[u] && active) key[u] = load<channels>(stage + keys.offset(j));
      }
#pragma unroll
      for (int h = 0; h < heads; ++h) {
        if (h >= count) break;
        Pack<float, channels> query;
        if (active) query = load<channels>(queries + h * p + channel);
#pragma unroll
        for (int u = 0; u < unrolled; ++u) {
          float dot = 0;
          if (there[u] && active) {
#pragma unroll
            for (int c = 0; c < channels; ++c) dot = fmaf(query[c], key[u][c], dot);
          }
#pragma unroll
          for (int offset = lanes / 2; offset > 0; offset /= 2) dot += __shfl_xor_sync(~0u, dot, offset);
          scores[h][u] = there[u] ? dot : minus_infinity();
        }
      }
    }
    Pack<T, channels> value[unrolled];
#pragma unroll
    for (int u = 0; u < unrolled; ++u) {
      const int j = u * Stages::groups + group;
      if (there[u] && active) value[u] = load<channels>(stage + keys.offset(j) + value_rows);
    }
#pragma unroll
    for (int h = 0; h < heads; ++h) {
      if (h >= count) break;
      float most = largest[h];
#pragma unroll
      for (int u = 0; u < unrolled; ++u) most = fmaxf(most, scores[h][u]);
      const float shrink = rescale(largest[h], most);
      largest[h] = most;
      sum[h] *= shrink;
#pragma unroll
      for (int c = 0; c < channels; ++c) values[h][c] *= shrink;
#pragma unroll
      for (int u = 0; u < unrolled; ++u) {
        const float weight = rescale(scores[h][u], most);
        sum[h] += weight;
        if (there[u] && active) {
#pragma unroll
          for (int c = 0; c < channels; ++c) values[h][c] = fmaf(weight, value[u][c], values[h][c]);
        }
      }
    }
  }
  // The groups of a warp by a tree, then the warps in their order.
  const int record = p + record_tail;
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    if (h >= count) break;
#pragma unroll
    for (int offset = lanes; offset < 32; offset *= 2) {
      const float other = __shfl_xor_sync(~0u, largest[h], offset), most = fmaxf(largest[h], other);
      const float of_this = rescale(largest[h], most), of_other = rescale(other, most);
      largest[h] = most;
      sum[h] = sum[h] * of_this + __shfl_xor_sync(~0u, sum[h], offset) * of_other;
#pragma unroll
      for (int c = 0; c < channels; ++c) {
        values[h][c] = values[h][c] * of_this + __shfl_xor_sync(~0u, values[h][c], offset) * of_other;
      }
    }
    if (h > 0) __syncthreads();
    if (thread % 32 < lanes) {
      float* const mine = records + thread / 32 * record;
      if (active) {
        Pack<float, channels> row;
#pragma unroll
        for (int c = 0; c < channels; ++c) row.set(c, values[h][c]);
        store(mine + channel, row);
      }
      if (lane == 0) mine[p] = largest[h], mine[p + 1] = sum[h];
    }
    __syncthreads();
#pragma unroll 1
    for (int i = thread; i < p; i += threads) {
      finish(h, i, [&](Softmax all) {
#pragma unroll
        for (int warp = 0; warp < warps; ++warp) {
          const float* const of_warp = records + warp * record;
          all = merge(all, {of_warp[p], of_warp[p + 1], of_warp[i]});
        }
        return all;
      });
    }
  }
  __syncthreads();
}

/// A float32 as two bf16: the rounded one in the lower half, what it left out in the upper.
__device__ __forceinline__ std::uint32_t halves_of(float x) {
  const bf16 high = from_float<bf16>(x);
  return tiles::pack(to_float(high), x - to_float(high));
}

/// The same on tensor cores, for P = 8 `lanes` channels and up to four heads. A tile of 16 keys is the left factor of its
/// scores, and transposed the left factor of its weighted values; columns 2 h and 2 h + 1 of the right factor are head h's
/// query or weights and what bf16 leaves out of them (of one head they come again in the other columns). A lane reads 16 bytes
/// of a key, so the channels of a product of 16 are eight by eight of four lanes, in both factors alike. `split_queries` has
/// [2 heads, P].
template <int lanes, int heads, typename Finish>
__device__ __forceinline__ void attend(const KeyStages<bf16, 8, lanes, true>& keys, int& n, int count,
                                       const bf16* split_queries, float* records, const Finish& finish) {
  using Stages = KeyStages<bf16, 8, lanes, true>;
  static_assert(heads == 1 || heads == 4);
  constexpr int p = 8 * lanes, record = p + record_tail;
  constexpr int key_loads = lanes / 4, value_loads = lanes / 8;  // of 16 bytes a lane and row
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, upper = thread % 32 / 4,
            quarter = thread % 4;
  const auto chunk_of = [](const bf16* row, int chunk) {
    return *reinterpret_cast<const uint4*>(row + chunk * 8);
  };
  uint4 query[key_loads];
#pragma unroll
  for (int j = 0; j < key_loads; ++j) {
    query[j] = chunk_of(split_queries + upper % (2 * heads) * p, j * 4 + quarter);
  }
  float values[value_loads * 4][4] = {}, largest = minus_infinity(), sum = 0;
  // Rows of the stage from this lane's first key to the key eight later, and from a key to its value.
  const int entries = keys.cache.entries, later = entries == 8 ? 16 : 8;
#pragma unroll 1
  for (int first = keys.begin; first < keys.end; first += Stages::stage_keys, ++n) {
    keys.wait_for(n);
    const int left = keys.end - first - warp * keys_of_tile;
    if (left <= 0) continue;
    const bf16* const tile = keys.stage(n) + warp * (2 * keys_of_tile * p);
    const bf16* const key = tile + upper * p;
    float dots[2][4] = {};
#pragma unroll
    for (int j = 0; j < key_loads; ++j) {
      const uint4 x = chunk_of(key, j * 4 + quarter), y = chunk_of(key + later * p, j * 4 + quarter);
      tiles::multiply_add(dots[0], {{x.x, y.x, x.y, y.y}}, query[j].x, query[j].y);
      tiles::multiply_add(dots[1], {{x.z, y.z, x.w, y.w}}, query[j].z, query[j].w);
    }
    // Of keys `upper` and upper + 8, for head `quarter`.
    float scores[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scores[i] = (dots[0][2 * i] + dots[1][2 * i]) + (dots[0][2 * i + 1] + dots[1][2 * i + 1]);
      if (upper + 8 * i >= left) scores[i] = minus_infinity();
    }
    float most = fmaxf(scores[0], scores[1]);
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, offset));
    most = fmaxf(most, largest);
    if (__any_sync(~0u, most != largest)) {
      const float shrink = exp2_fast(largest - most);
      largest = most;
      sum *= shrink;
#pragma unroll
      for (auto& of_channels : values) {
#pragma unroll
        for (float& value : of_channels) value *= shrink;
      }
    }
    std::uint32_t weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float weight = exp2_fast(scores[i] - most);
      sum += weight;
      // To the lane whose column of the right factor it is in: of keys 2 quarter and the next.
      const std::uint32_t both = halves_of(weight);
      const std::uint32_t x = __shfl_sync(~0u, both, 8 * quarter + upper / 2),
                          y = __shfl_sync(~0u, both, 8 * quarter + 4 + upper / 2);
      weights[i] = __byte_perm(x, y, upper % 2 == 0 ? 0x5410 : 0x7632);
    }
    const auto weigh = [&](auto whole) {
      const bf16* const value = tile + (entries + 2 * quarter) * p;
#pragma unroll
      for (int c = 0; c < value_loads; ++c) {
        uint4 of_key[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          of_key[i] = {0, 0, 0, 0};
          if (decltype(whole)::value || 2 * quarter + i % 2 + i / 2 * 8 < left)
            of_key[i] = chunk_of(value + (i % 2 + i / 2 * later) * p, c * 8 + upper);
        }
        const auto add = [&](int pair, std::uint32_t v0, std::uint32_t v1, std::uint32_t v2,
                             std::uint32_t v3) {
          tiles::multiply_add(values[c * 4 + pair],
                              {{__byte_perm(v0, v1, 0x5410), __byte_perm(v0, v1, 0x7632),
                                __byte_perm(v2, v3, 0x5410), __byte_perm(v2, v3, 0x7632)}},
                              weights[0], weights[1]);
        };
        add(0, of_key[0].x, of_key[1].x, of_key[2].x, of_key[3].x);
        add(1, of_key[0].y, of_key[1].y, of_key[2].y, of_key[3].y);
        add(2, of_key[0].z, of_key[1].z, of_key[2].z, of_key[3].z);
        add(3, of_key[0].w, of_key[1].w, of_key[2].w, of_key[3].w);
      }
    };
    if (left >= keys_of_tile) {
      weigh(std::true_type{});
    } else {
      weigh(std::false_type{});
    }
  }
#pragma unroll
  for (int offset = 4; offset < 32; offset *= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (quarter < heads) {
    float* const mine = records + (warp * heads + quarter) * record;
#pragma unroll
    for (int c = 0; c < value_loads; ++c) {
#pragma unroll
      for (int pair = 0; pair < 4; pair += 2) {
        const float *x = values[c * 4 + pair], *y = values[c * 4 + pair + 1];
        *reinterpret_cast<float4*>(mine + (c * 8 + upper) * 8 + pair * 2) = {x[0] + x[1], x[2] + x[3],
                                                                             y[0] + y[1], y[2] + y[3]};
      }
    }
    if (upper == 0) *reinterpret_cast<float2*>(mine + p) = {largest, sum};
  }
  __syncthreads();
#pragma unroll 1
  for (int index = thread; index < count * p; index += threads) {
    const int h = heads == 1 ? 0 : index / p, i = index - h * p;
    finish(h, i, [&](Softmax all) {
      const float* of_warp[warps];
      float most = all.largest;
#pragma unroll
      for (int w = 0; w < warps; ++w) {
        of_warp[w] = records + (w * heads + h) * record;
        most = fmaxf(most, of_warp[w][p]);
      }
      const float of_all = exp2_fast(all.largest - most);
      all = {most, all.sum * of_all, all.value * of_all};
#pragma unroll
      for (int w = 0; w < warps; ++w) {
        const float factor = exp2_fast(of_warp[w][p] - most);
        all.sum = fmaf(of_warp[w][p + 1], factor, all.sum);
        all.value = fmaf(of_warp[w][i], factor, all.value);
      }
      return all;
    });
  }
  __syncthreads();
}

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
  if (a.at_rest) wait_for_kernels_before();

  const auto head_of = [&](int h) { return a.heads[first_head + h]; };
  const auto make_queries = [&](int begin, int count) {
    const float scale = log2_e * rsqrtf(static_cast<float>(p));
#pragma unroll 1
    for (int index = thread; index < count * half; index += threads) {
      const int h = heads == 1 ? 0 : index / half, i = index - h * half, j = i + half;
      const int head = head_of(begin + h);
      const T* q = a.q.at(b, head % a.q.heads);
      const float x = to_float(q[i]), y = to_float(q[j]), cosine = rope[i], sine = rope[half + i];
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
    const T* const k = a.k.at(b, key_head % a.k.heads);
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
  const int entries[2] = {a.keys.recent_entry(t), a.keys.dilated_entry(t)};
  for (const int entry : entries) {
    if (!a.cache.has(table, entry)) continue;
    T* const key = a.cache.key(table, entry, m);
    T* const value = a.cache.value(table, entry, m);
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
  // Of more blocks than run at once, most would read early in vain.
  a.at_rest = call.at_rest && grid.x * grid.y * grid.z <=
                                  static_cast<unsigned>(multiprocessors) * blocks_of_sm(heads, in_tiles);
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
