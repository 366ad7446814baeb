// The output gate (docs/model.md, section 4) and GELU (docs/model.md, section 9), all tensors [N, d] (or any one
// shape) in C, strided or not. Bound by memory; floor: each input read once and each output written once (gate 3 and
// 5 tensors, GELU 2 and 3).
#include <algorithm>

#include "kernels/cuda/accumulate.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/math.cuh"

namespace ratplus::cuda {
namespace {

template <typename T, int V, int count>
struct Loaded {
  Pack<T, V> x[count];
};

template <typename T>
struct GateForward {
  static constexpr int count = 3;
  T* z;
  const T *a, *o;

  template <int V>
  __device__ __forceinline__ Loaded<T, V, 2> load(const std::int64_t (&at)[count]) const {
    return {{cuda::load<V>(a + at[1]), cuda::load<V>(o + at[2])}};
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Loaded<T, V, 2>& in) const {
    Pack<T, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.set(j, in.x[0][j] * sigmoid(in.x[1][j]));
    cuda::store(z + at[0], out);
  }
};

template <typename T>
struct GateBackward {
  static constexpr int count = 5;
  T *da, *dgate;
  const T *dz, *a, *o;

  template <int V>
  __device__ __forceinline__ Loaded<T, V, 3> load(const std::int64_t (&at)[count]) const {
    return {{cuda::load<V>(dz + at[2]), cuda::load<V>(a + at[3]), cuda::load<V>(o + at[4])}};
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Loaded<T, V, 3>& in) const {
    Pack<T, V> value, opening;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float g = sigmoid(in.x[2][j]), d = in.x[0][j];
      value.set(j, d * g);
      opening.set(j, d * in.x[1][j] * (g * (1.0f - g)));
    }
    cuda::store(da + at[0], value);
    cuda::store(dgate + at[1], opening);
  }
};

template <typename T>
struct GeluForward {
  static constexpr int count = 2;
  T* z;
  const T* h;

  template <int V>
  __device__ __forceinline__ Pack<T, V> load(const std::int64_t (&at)[count]) const {
    return cuda::load<V>(h + at[1]);
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Pack<T, V>& in) const {
    Pack<T, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.set(j, in[j] * normal(in[j]).cdf);
    cuda::store(z + at[0], out);
  }
};

template <typename T>
struct GeluBackward {
  static constexpr int count = 3;
  T* dh;
  const T *dz, *h;

  template <int V>
  __device__ __forceinline__ Loaded<T, V, 2> load(const std::int64_t (&at)[count]) const {
    return {{cuda::load<V>(dz + at[1]), cuda::load<V>(h + at[2])}};
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Loaded<T, V, 2>& in) const {
    Pack<T, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const Normal n = normal(in.x[1][j]);  // gelu'(h) = Phi(h) + h phi(h)
      out.set(j, in.x[0][j] * fmaf(in.x[1][j], n.pdf, n.cdf));
    }
    cuda::store(dh + at[0], out);
  }
};

template <typename T>
struct Accumulate {
  static constexpr int count = 2;
  float* sum;
  T* x;

  template <int V>
  struct In {
    Pack<float, V> sum;
    Pack<T, V> x;
  };
  template <int V>
  __device__ __forceinline__ In<V> load(const std::int64_t (&at)[count]) const {
    return {cuda::load<V>(static_cast<const float*>(sum) + at[0]),
            cuda::load<V>(static_cast<const T*>(x) + at[1])};
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const In<V>& in) const {
    Pack<float, V> total;
    Pack<T, V> rounded;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const float value = in.sum[j] + in.x[j];
      total.set(j, value);
      rounded.set(j, value);
    }
    cuda::store(sum + at[0], total);
    cuda::store(x + at[1], rounded);
  }
};

/// Vectors of 16 bytes.
template <typename T>
inline constexpr int vector = 16 / sizeof(T);

}  // namespace

void CudaOps::compute(const operation::OutputGateForward& call) {
  const Tensor &z = call.z, &a = call.a, &o = call.o;
  const std::array tensors{z, a, o};
  if (z.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(GateForward<T>{elements<T>(z), elements<T>(a), elements<T>(o)}, tensors, stream_,
                           "output_gate_forward");
  });
}

void CudaOps::compute(const operation::OutputGateBackward& call) {
  const Tensor &da = call.da, &dgate = call.dgate, &dz = call.dz, &a = call.a, &o = call.o;
  const std::array tensors{da, dgate, dz, a, o};
  if (da.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(
        GateBackward<T>{elements<T>(da), elements<T>(dgate), elements<T>(dz), elements<T>(a), elements<T>(o)},
        tensors, stream_, "output_gate_backward");
  });
}

void CudaOps::compute(const operation::GeluForward& call) {
  const Tensor &z = call.z, &h = call.h;
  const std::array tensors{z, h};
  if (z.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(GeluForward<T>{elements<T>(z), elements<T>(h)}, tensors, stream_, "gelu_forward");
  });
}

void CudaOps::compute(const operation::GeluBackward& call) {
  const Tensor &dh = call.dh, &dz = call.dz, &h = call.h;
  const std::array tensors{dh, dz, h};
  if (dh.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(GeluBackward<T>{elements<T>(dh), elements<T>(dz), elements<T>(h)}, tensors,
                           stream_, "gelu_backward");
  });
}

void accumulate(const Tensor& sum, const Tensor& x, cudaStream_t stream) {
  if (x.numel() == 0) return;
  with_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    elementwise<4>(Accumulate<T>{sum.as<float>(), elements<T>(x)}, std::array{sum, x}, stream, "accumulate");
  });
}

}  // namespace ratplus::cuda
