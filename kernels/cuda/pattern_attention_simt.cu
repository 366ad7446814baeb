// Pattern attention for what the kernels by tiles do not take: a P that is no multiple of 8 (in float32: of 4) or above 128,
// rows that are not 16-byte aligned. A warp has one query, or, for dk and dv, one key, and walks over its keys or queries a
// few at a time; a lane has every 32nd channel. Simple rather than fast, but the cost follows the number of attended keys,
// and all sums have one order. The formulas are those of pattern_attention_forward.cu and pattern_attention_backward.cu.
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
  float* lse;    ///< [B, H, Tq], shifted: position t is element t
  float* delta;  ///< the same
  int heads;     ///< H
  HeadMap map;
  int first;    ///< position of the first query
  int queries;  ///< Tq
  int p;
  float scale;
  std::int64_t sequence_heads;  ///< B heads of the group
  HeadGroup group;
};

/// The head and the position of a warp, among `each` positions a head from `begin` on.
struct Place {
  template <typename T>
  __device__ Place(const Simt<T>& x, int begin, int each) {
    const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
    there = index < x.sequence_heads * each;
    const int sequence_head = static_cast<int>(index / each);
    t = begin + static_cast<int>(index % each);
    b = sequence_head / x.group.count;
    h = x.group.head[sequence_head % x.group.count];
    statistics = (static_cast<std::int64_t>(b) * x.heads + h) * x.queries;
  }

  bool there;
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
  const Place place(x, x.first, x.queries);
  if (!place.there) return;
  const QueryKeys keys(x.group.lists, place.t);
  const int hk = x.map.key(place.h);
  const HeadRows<T> k(x.k, place.b, hk), v(x.v, place.b, hk);
  const Channels<E> q(HeadRows<T>(x.q, place.b, x.map.query(place.h)).row(place.t), x.p);
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
  const Place place(x, x.first, x.queries);
  if (!place.there) return;
  const QueryKeys keys(x.group.lists, place.t);
  const int hk = x.map.key(place.h);
  const HeadRows<T> k(x.k, place.b, hk), v(x.v, place.b, hk);
  const Channels<E> q(HeadRows<T>(x.q, place.b, x.map.query(place.h)).row(place.t), x.p);
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
  const Place place(x, 0, x.group.lists.tokens);
  if (!place.there) return;
  const KeyLists& lists = x.group.lists;
  const int s = place.t;
  const int end = lists.keeps(s) ? lists.tokens : min(s + lists.window + 1, lists.tokens);
  const HeadRows<T> q(x.q, place.b, x.map.query(place.h)), dout(x.dout, place.b, place.h);
  const Channels<E> key(HeadRows<T>(x.k, place.b, x.map.key(place.h)).row(s), x.p);
  const Channels<E> value(HeadRows<T>(x.v, place.b, x.map.key(place.h)).row(s), x.p);
  Channels<E> dk, dv;
  for (int begin = max(s, x.first); begin < end; begin += at_once) {
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

/// What both directions have.
template <typename T, typename Call>
Simt<T> arguments(const HeadGroup& group, const Call& call) {
  Simt<T> x;
  const Tensor& q = call.q;
  x.q = Rows<T>(q, call.first_query), x.k = Rows<T>(call.k), x.v = Rows<T>(call.v);
  x.out = Rows<T>(call.out, call.first_query);
  x.lse = call.lse.template as<float>() - call.first_query, x.delta = nullptr;
  x.map = HeadMap(call.out, call.q, call.k);
  x.heads = static_cast<int>(call.out.size(2)), x.p = static_cast<int>(q.size(3));
  x.first = static_cast<int>(call.first_query), x.queries = static_cast<int>(q.size(1));
  x.scale = 1.0f / std::sqrt(static_cast<float>(x.p));
  x.sequence_heads = q.size(0) * group.count;
  x.group = group;
  return x;
}

unsigned blocks_for(std::int64_t positions) {
  return static_cast<unsigned>((positions + warps - 1) / warps);
}

/// Calls f(integral_constant<int, E>) with a lane's channels.
template <typename F>
void with_channels(std::int64_t p, F&& f) {
  require(p <= operation::AttentionForward::most_head_dim,
          "attention: heads of {} channels, and at most {} are supported on a GPU", p,
          operation::AttentionForward::most_head_dim);
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

void simt_attention_forward(cudaStream_t stream, const HeadGroup& group,
                            const operation::AttentionForward& call) {
  with_type(call.q.dtype(), [&](auto type) {
    using T = decltype(type);
    const Simt<T> x = arguments<T>(group, call);
    with_channels(call.q.size(3), [&](auto e) {
      forward_kernel<T, decltype(e)::value>
          <<<blocks_for(x.sequence_heads * x.queries), threads, 0, stream>>>(x);
    });
  });
  check_launch("simt_attention_forward");
}

void simt_attention_backward(cudaStream_t stream, const HeadGroup& group,
                             const operation::AttentionBackward& call, float* delta) {
  with_type(call.q.dtype(), [&](auto type) {
    using T = decltype(type);
    Simt<T> x = arguments<T>(group, call);
    x.dout = Rows<T>(call.dout, call.first_query), x.dq = Rows<T>(call.dq, call.first_query);
    x.dk = Rows<T>(call.dk), x.dv = Rows<T>(call.dv);
    x.delta = delta - call.first_query;
    with_channels(call.q.size(3), [&](auto e) {
      queries_kernel<T, decltype(e)::value>
          <<<blocks_for(x.sequence_heads * x.queries), threads, 0, stream>>>(x);
      keys_kernel<T, decltype(e)::value>
          <<<blocks_for(x.sequence_heads * group.lists.tokens), threads, 0, stream>>>(x);
    });
  });
  check_launch("simt_attention_backward");
}

}  // namespace ratplus::cuda
