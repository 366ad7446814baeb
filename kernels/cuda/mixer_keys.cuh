// Keys and values of a mixer's step (mixer_step.cu): pages of a cache on their way through shared memory, and the attention of one
// token to them, by every thread or on tensor cores.
#pragma once

#include <cstdint>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/cache_rows.cuh"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/pattern_attention_tiles.cuh"

namespace ratplus::cuda::mixer {

constexpr int threads = 128, warps = threads / 32;
constexpr int most_heads = 8;     // of a key, that are computed together
constexpr int unrolled = 4;       // keys that a group of lanes reads at once
constexpr int together = 8;       // parts that a thread reads at once
constexpr int keys_of_tile = 16;  // of mma.sync m16n8k16
constexpr int record_tail = 4;    // floats behind a record's channels, which keep the next one aligned

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

}  // namespace ratplus::cuda::mixer
