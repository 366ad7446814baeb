// Pattern attention without tensor cores: for DType::f32, and for what the tensor-core kernels do not take (a
// P that is no multiple of 8 or above 128, rows that are not 16-byte aligned). A warp has one query, or, for
// dk and dv, one key, and walks over its keys or queries a few at a time; a lane has every 32nd channel.
// Simple rather than fast, but the cost follows the number of attended keys, and all sums have one order. The
// formulas are those of pattern_attention_forward.cu and pattern_attention_backward.cu.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/pattern_attention_tiles.cuh"

namespace ratplus::cuda {
namespace {

constexpr int warps = 4, threads = 32 * warps;
constexpr int at_once = 4;  ///< keys of a query, or queries of a key

template <typename T>
struct Simt {
  Rows<T> q, k, v, out, dout, dq, dk, dv;
  float* lse;    ///< [B, H, T]
  float* delta;  ///< [B, H, T]
  int heads;     ///< H
  int p;
  float scale;
  std::int64_t count;  ///< B heads of the group T
  HeadGroup group;
};

/// The head and the position of a warp.
struct Place {
  template <typename T>
  __device__ explicit Place(const Simt<T>& x)
      : index(static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / 32) {
    const int sequence_head = static_cast<int>(index / x.group.lists.tokens);
    t = static_cast<int>(index % x.group.lists.tokens);
    b = sequence_head / x.group.count;
    h = x.group.head[sequence_head % x.group.count];
    statistics = (static_cast<std::int64_t>(b) * x.heads + h) * x.group.lists.tokens;
  }

  std::int64_t index;
  int b, h, t;
  std::int64_t statistics;  ///< of the head, in lse and delta
};

/// The keys of a query in one order: its window, then the kept ones below.
struct QueryKeys {
  __device__ QueryKeys(const KeyLists& key_lists, int t) : lists(key_lists) {
    if (!lists.dense()) {
      window_begin = max(t - lists.window, 0);
      windowed = t + 1 - window_begin;
    }
    count = windowed + lists.kept_of(t);
  }
  __device__ int key(int i) const {
    return i < windowed ? window_begin + i : lists.kept_position(i - windowed);
  }

  const KeyLists& lists;
  int window_begin = 0, windowed = 0, count;
};

__device__ __forceinline__ float sum_of_warp(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
  return x;
}

/// A lane's channels of a row, E of them; zeros past P.
template <int E>
struct Channels {
  float x[E] = {};

  Channels() = default;
  template <typename T>
  __device__ __forceinline__ Channels(const T* row, int p) {
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const int i = static_cast<int>(threadIdx.x) % 32 + 32 * e;
      if (i < p) x[e] = to_float(row[i]);
    }
  }
  template <typename T>
  __device__ __forceinline__ void store(T* row, int p, float factor) const {
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const int i = static_cast<int>(threadIdx.x) % 32 + 32 * e;
      if (i < p) row[i] = from_float<T>(x[e] * factor);
    }
  }
  __device__ __forceinline__ void add(const Channels& other, float factor) {
#pragma unroll
    for (int e = 0; e < E; ++e) x[e] = fmaf(other.x[e], factor, x[e]);
  }
  __device__ __forceinline__ void scale(float factor) {
#pragma unroll
    for (int e = 0; e < E; ++e) x[e] *= factor;
  }
  /// The whole row's product, in every lane.
  __device__ __forceinline__ float dot(const Channels& other) const {
    float sum = 0;
#pragma unroll
    for (int e = 0; e < E; ++e) sum = fmaf(x[e], other.x[e], sum);
    return sum_of_warp(sum);
  }
};

template <typename T, int E>
__global__ void __launch_bounds__(threads) forward_kernel(const __grid_constant__ Simt<T> x) {
  const Place place(x);
  if (place.index >= x.count) return;
  const QueryKeys keys(x.group.lists, place.t);
  const HeadRows<T> k(x.k, place.b, place.h), v(x.v, place.b, place.h);
  const Channels<E> q(HeadRows<T>(x.q, place.b, place.h).row(place.t), x.p);
  float largest = -INFINITY, weight = 0;
  Channels<E> values;
  for (int i = 0; i < keys.count; i += at_once) {
    float scores[at_once], now = largest;
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      const Channels<E> key(k.row(keys.key(min(i + u, keys.count - 1))), x.p);
      scores[u] = q.dot(key) * x.scale;
      if (i + u >= keys.count) scores[u] = -INFINITY;
      now = fmaxf(now, scores[u]);
    }
    const float shrink = expf(largest - now);  // 0 at first: `now` is a score, hence finite
    largest = now;
    weight *= shrink;
    values.scale(shrink);
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      const float w = expf(scores[u] - now);
      weight += w;
      values.add(Channels<E>(v.row(keys.key(min(i + u, keys.count - 1))), x.p), w);
    }
  }
  values.store(HeadRows<T>(x.out, place.b, place.h).row(place.t), x.p, 1 / weight);
  if (threadIdx.x % 32 == 0) x.lse[place.statistics + place.t] = largest + logf(weight);
}

/// delta and dq.
template <typename T, int E>
__global__ void __launch_bounds__(threads) queries_kernel(const __grid_constant__ Simt<T> x) {
  const Place place(x);
  if (place.index >= x.count) return;
  const QueryKeys keys(x.group.lists, place.t);
  const HeadRows<T> k(x.k, place.b, place.h), v(x.v, place.b, place.h);
  const Channels<E> q(HeadRows<T>(x.q, place.b, place.h).row(place.t), x.p);
  const Channels<E> dout(HeadRows<T>(x.dout, place.b, place.h).row(place.t), x.p);
  const Channels<E> out(HeadRows<T>(x.out, place.b, place.h).row(place.t), x.p);
  const float lse = x.lse[place.statistics + place.t], delta = dout.dot(out);
  if (threadIdx.x % 32 == 0) x.delta[place.statistics + place.t] = delta;
  Channels<E> dq;
  for (int i = 0; i < keys.count; i += at_once) {
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      const int s = keys.key(min(i + u, keys.count - 1));
      const Channels<E> key(k.row(s), x.p), value(v.row(s), x.p);
      const float w = i + u < keys.count ? expf(q.dot(key) * x.scale - lse) : 0.0f;
      dq.add(key, w * (dout.dot(value) - delta));
    }
  }
  dq.store(HeadRows<T>(x.dq, place.b, place.h).row(place.t), x.p, x.scale);
}

/// dk and dv of one key, from the queries at s .. T - 1 if it is kept, else s .. s + W.
template <typename T, int E>
__global__ void __launch_bounds__(threads) keys_kernel(const __grid_constant__ Simt<T> x) {
  const Place place(x);
  if (place.index >= x.count) return;
  const KeyLists& lists = x.group.lists;
  const int s = place.t;
  const int end = lists.keeps(s) ? lists.tokens : min(s + lists.window + 1, lists.tokens);
  const HeadRows<T> q(x.q, place.b, place.h), dout(x.dout, place.b, place.h);
  const Channels<E> key(HeadRows<T>(x.k, place.b, place.h).row(s), x.p);
  const Channels<E> value(HeadRows<T>(x.v, place.b, place.h).row(s), x.p);
  Channels<E> dk, dv;
  for (int begin = s; begin < end; begin += at_once) {
#pragma unroll
    for (int u = 0; u < at_once; ++u) {
      const int t = min(begin + u, end - 1);
      const Channels<E> query(q.row(t), x.p), doutput(dout.row(t), x.p);
      const float lse = x.lse[place.statistics + t], delta = x.delta[place.statistics + t];
      const float w = begin + u < end ? expf(key.dot(query) * x.scale - lse) : 0.0f;
      dv.add(doutput, w);
      dk.add(query, w * (value.dot(doutput) - delta));
    }
  }
  dk.store(HeadRows<T>(x.dk, place.b, place.h).row(s), x.p, x.scale);
  dv.store(HeadRows<T>(x.dv, place.b, place.h).row(s), x.p, 1.0f);
}

template <typename T>
Simt<T> arguments(const HeadGroup& group, const Tensor& lse, const Tensor& q, const Tensor& k,
                  const Tensor& v) {
  Simt<T> x;
  x.q = Rows<T>(q), x.k = Rows<T>(k), x.v = Rows<T>(v);
  x.lse = lse.as<float>(), x.delta = nullptr;
  x.heads = static_cast<int>(q.size(2)), x.p = static_cast<int>(q.size(3));
  x.scale = 1.0f / std::sqrt(static_cast<float>(x.p));
  x.count = q.size(0) * group.count * q.size(1);
  x.group = group;
  return x;
}

/// Calls f(integral_constant<int, E>) with a lane's channels.
template <typename F>
void with_channels(std::int64_t p, F&& f) {
  require(p <= 256, "attention: heads of {} channels, and at most 256 are supported on a GPU", p);
  if (p <= 32) {
    f(std::integral_constant<int, 1>{});
  } else if (p <= 64) {
    f(std::integral_constant<int, 2>{});
  } else if (p <= 128) {
    f(std::integral_constant<int, 4>{});
  } else {
    f(std::integral_constant<int, 8>{});
  }
}

}  // namespace

void simt_attention_forward(cudaStream_t stream, const HeadGroup& group, Tensor out, Tensor lse, Tensor q,
                            Tensor k, Tensor v) {
  with_type(q.dtype(), [&](auto type) {
    using T = decltype(type);
    Simt<T> x = arguments<T>(group, lse, q, k, v);
    x.out = Rows<T>(out);
    with_channels(q.size(3), [&](auto e) {
      forward_kernel<T, decltype(e)::value>
          <<<static_cast<unsigned>((x.count + warps - 1) / warps), threads, 0, stream>>>(x);
    });
  });
  check_launch("simt_attention_forward");
}

void simt_attention_backward(cudaStream_t stream, const HeadGroup& group, Tensor dq, Tensor dk, Tensor dv,
                             Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                             float* delta) {
  with_type(q.dtype(), [&](auto type) {
    using T = decltype(type);
    Simt<T> x = arguments<T>(group, lse, q, k, v);
    x.out = Rows<T>(out), x.dout = Rows<T>(dout);
    x.dq = Rows<T>(dq), x.dk = Rows<T>(dk), x.dv = Rows<T>(dv);
    x.delta = delta;
    const unsigned blocks = static_cast<unsigned>((x.count + warps - 1) / warps);
    with_channels(q.size(3), [&](auto e) {
      queries_kernel<T, decltype(e)::value><<<blocks, threads, 0, stream>>>(x);
      keys_kernel<T, decltype(e)::value><<<blocks, threads, 0, stream>>>(x);
    });
  });
  check_launch("simt_attention_backward");
}

}  // namespace ratplus::cuda
