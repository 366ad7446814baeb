// The output gate (docs/model.md, section 4) and GELU (docs/model.md, section 9), all tensors [N, d] (or any one
// shape) in C, strided or not. Bound by memory; floor: each input read once and each output written once (gate 3 and
// 5 tensors, GELU 2 and 3).
#include <algorithm>

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

template <std::size_t count>
void check_same(const std::array<Tensor, count>& tensors, DType compute, const char* op) {
  for (const Tensor& tensor : tensors) {
    require(tensor.dtype() == compute && tensor.device().kind == DeviceKind::cuda,
            "{}: a tensor is not {} on cuda", op, to_string(compute));
    require(std::ranges::equal(tensor.shape(), tensors[0].shape()), "{}: tensors differ in shape", op);
    require(tensor.empty() == (tensor.numel() == 0), "{}: a tensor is missing", op);
  }
}

/// Vectors of 16 bytes.
template <typename T>
inline constexpr int vector = 16 / sizeof(T);

}  // namespace

void CudaOps::output_gate_forward(Tensor z, Tensor a, Tensor o) {
  const std::array tensors{z, a, o};
  check_same(tensors, compute_, "output_gate_forward");
  if (z.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(GateForward<T>{elements<T>(z), elements<T>(a), elements<T>(o)}, tensors, stream_,
                           "output_gate_forward");
  });
}

void CudaOps::output_gate_backward(Tensor da, Tensor dgate, Tensor dz, Tensor a, Tensor o) {
  const std::array tensors{da, dgate, dz, a, o};
  check_same(tensors, compute_, "output_gate_backward");
  if (da.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(
        GateBackward<T>{elements<T>(da), elements<T>(dgate), elements<T>(dz), elements<T>(a), elements<T>(o)},
        tensors, stream_, "output_gate_backward");
  });
}

void CudaOps::gelu_forward(Tensor z, Tensor h) {
  const std::array tensors{z, h};
  check_same(tensors, compute_, "gelu_forward");
  if (z.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(GeluForward<T>{elements<T>(z), elements<T>(h)}, tensors, stream_, "gelu_forward");
  });
}

void CudaOps::gelu_backward(Tensor dh, Tensor dz, Tensor h) {
  const std::array tensors{dh, dz, h};
  check_same(tensors, compute_, "gelu_backward");
  if (dh.numel() == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    elementwise<vector<T>>(GeluBackward<T>{elements<T>(dh), elements<T>(dz), elements<T>(h)}, tensors,
                           stream_, "gelu_backward");
  });
}

}  // namespace ratplus::cuda
