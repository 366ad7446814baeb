// Copies, conversions, fills and sums of whole tensors, of any strides. Bound by memory; floor: one read and one write
// of each element.
#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/elementwise.cuh"

namespace ratplus::cuda {
namespace {

/// V elements of any type, moved as bytes.
template <typename T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Raw {
  T element[V];
};

template <typename T>
struct Copy {
  static constexpr int count = 2;
  T* to;
  const T* from;

  template <int V>
  __device__ __forceinline__ Raw<T, V> load(const std::int64_t (&at)[count]) const {
    return *reinterpret_cast<const Raw<T, V>*>(from + at[1]);
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Raw<T, V>& in) const {
    *reinterpret_cast<Raw<T, V>*>(to + at[0]) = in;
  }
};

template <typename To, typename From>
struct Convert {
  static constexpr int count = 2;
  To* to;
  const From* from;

  template <int V>
  __device__ __forceinline__ Pack<From, V> load(const std::int64_t (&at)[count]) const {
    return cuda::load<V>(from + at[1]);
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Pack<From, V>& in) const {
    Pack<To, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.set(j, in[j]);
    cuda::store(to + at[0], out);
  }
};

template <typename T>
struct Fill {
  static constexpr int count = 1;
  T* to;
  T value;

  struct Nothing {};
  template <int V>
  __device__ __forceinline__ Nothing load(const std::int64_t (&)[count]) const {
    return {};
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Nothing&) const {
    Raw<T, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.element[j] = value;
    *reinterpret_cast<Raw<T, V>*>(to + at[0]) = out;
  }
};

struct Add {
  static constexpr int count = 2;
  float* y;
  const float* x;

  template <int V>
  struct Loaded {
    Pack<float, V> y, x;
  };
  template <int V>
  __device__ __forceinline__ Loaded<V> load(const std::int64_t (&at)[count]) const {
    return {cuda::load<V>(static_cast<const float*>(y) + at[0]), cuda::load<V>(x + at[1])};
  }
  template <int V>
  __device__ __forceinline__ void store(const std::int64_t (&at)[count], const Loaded<V>& in) const {
    Pack<float, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.set(j, in.y[j] + in.x[j]);
    cuda::store(y + at[0], out);
  }
};

template <typename T>
void copy_elements(const Tensor& dst, const Tensor& src, cudaStream_t stream) {
  elementwise<16 / sizeof(T)>(Copy<T>{elements<T>(dst), elements<T>(src)}, std::array{dst, src}, stream,
                              "copy");
}

template <typename T>
void fill_elements(const Tensor& x, T value, cudaStream_t stream) {
  elementwise<16 / sizeof(T)>(Fill<T>{elements<T>(x), value}, std::array{x}, stream, "fill");
}

}  // namespace

void CudaOps::compute(const operation::Copy& call) {
  const Tensor &dst = call.dst, &src = call.src;
  if (dst.numel() == 0) return;
  if (dst.dtype() == DType::f32 && src.dtype() == DType::bf16) {
    return elementwise<8>(Convert<float, bf16>{elements<float>(dst), elements<bf16>(src)},
                          std::array{dst, src}, stream_, "copy");
  }
  if (dst.dtype() == DType::bf16 && src.dtype() == DType::f32) {
    return elementwise<8>(Convert<bf16, float>{elements<bf16>(dst), elements<float>(src)},
                          std::array{dst, src}, stream_, "copy");
  }
  if (dst.contiguous() && src.contiguous()) {
    return check_cuda(cudaMemcpyAsync(dst.raw(), src.raw(), static_cast<std::size_t>(dst.bytes()),
                                      cudaMemcpyDeviceToDevice, stream_),
                      "copying on the device");
  }
  switch (size_of(dst.dtype())) {
    case 1:
      return copy_elements<std::uint8_t>(dst, src, stream_);
    case 2:
      return copy_elements<std::uint16_t>(dst, src, stream_);
    case 4:
      return copy_elements<std::uint32_t>(dst, src, stream_);
    default:
      return copy_elements<std::uint64_t>(dst, src, stream_);
  }
}

void CudaOps::compute(const operation::Fill& call) {
  const Tensor& x = call.x;
  const float value = call.value;
  if (x.numel() == 0) return;
  switch (x.dtype()) {
    case DType::f32:
      return fill_elements(x, value, stream_);
    case DType::f64:
      return fill_elements(x, static_cast<double>(value), stream_);
    case DType::i32:
      return fill_elements(x, static_cast<std::int32_t>(value), stream_);
    case DType::bf16:
      return fill_elements(x, __bfloat16_as_ushort(__float2bfloat16_rn(value)), stream_);
    default:
      require(false, "fill: {} is none of f32, f64, bf16, i32", to_string(x.dtype()));
  }
}

void CudaOps::compute(const operation::Add& call) {
  const Tensor &y = call.y, &x = call.x;
  if (y.numel() == 0) return;
  elementwise<4>(Add{y.as<float>(), x.as<float>()}, std::array{y, x}, stream_, "add");
}

}  // namespace ratplus::cuda
