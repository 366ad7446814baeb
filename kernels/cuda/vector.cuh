// Elements of the compute types in registers: conversions, and loads and stores of several at once.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace ratplus::cuda {

/// What a kernel sees of DType::bf16.
using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) {
  return x;
}
__device__ __forceinline__ float to_float(bf16 x) {
  return __bfloat162float(x);
}
template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

/// N neighbouring elements, loaded and stored with as few instructions as their size allows (16 bytes each at
/// most); the address is a multiple of min(16, N sizeof(T)) bytes.
template <typename T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T element[N];

  __device__ __forceinline__ float operator[](int i) const { return to_float(element[i]); }
  __device__ __forceinline__ void set(int i, float x) { element[i] = from_float<T>(x); }
};

template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <int N, typename T>
__device__ __forceinline__ void store(T* to, const Pack<T, N>& values) {
  *reinterpret_cast<Pack<T, N>*>(to) = values;
}

/// The elements of a tensor of the compute type T, for a kernel.
template <typename T>
T* elements(const Tensor& tensor) {
  return static_cast<T*>(tensor.raw());
}

/// Calls f(T{}) with the kernel type of a compute type, float or bf16: f is a generic lambda that launches.
template <typename F>
void with_type(DType dtype, F&& f) {
  if (dtype == DType::bf16) {
    f(bf16{});
  } else {
    f(float{});
  }
}

}  // namespace ratplus::cuda
