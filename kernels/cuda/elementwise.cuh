// Elementwise kernels over tensors of one shape and any strides: vectors of neighbouring elements where all tensors
// allow it, else element by element.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "kernels/cuda/checks.h"
#include "kernels/cuda/vector.cuh"

namespace ratplus::cuda {

/// The shape and strides of `count` tensors, in as few dimensions as all their strides allow; innermost first.
template <int count>
struct Layout {
  int rank;
  std::int64_t size[Tensor::max_rank];
  std::int64_t stride[count][Tensor::max_rank];  ///< elements
};

template <std::size_t count>
Layout<static_cast<int>(count)> common_layout(const std::array<Tensor, count>& tensors) {
  Layout<static_cast<int>(count)> layout{};
  const Tensor& first = tensors[0];
  for (int dim = first.rank(); dim-- > 0;) {
    if (first.size(dim) == 1) continue;
    const int inner = layout.rank - 1;
    bool joins = inner >= 0;
    for (std::size_t k = 0; joins && k < count; ++k) {
      joins = tensors[k].stride(dim) == layout.stride[k][inner] * layout.size[inner];
    }
    if (joins) {
      layout.size[inner] *= first.size(dim);
      continue;
    }
    layout.size[layout.rank] = first.size(dim);
    for (std::size_t k = 0; k < count; ++k) layout.stride[k][layout.rank] = tensors[k].stride(dim);
    ++layout.rank;
  }
  if (layout.rank == 0) {  // one element
    layout.rank = 1;
    layout.size[0] = 1;
    for (std::size_t k = 0; k < count; ++k) layout.stride[k][0] = 1;
  }
  return layout;
}

/// Whether every run of V elements of the innermost dimension can be loaded as a Pack.
template <int V, std::size_t count>
bool in_vectors(const Layout<static_cast<int>(count)>& layout, const std::array<Tensor, count>& tensors) {
  if (layout.size[0] % V != 0) return false;
  for (std::size_t k = 0; k < count; ++k) {
    const std::int64_t alignment = std::min<std::int64_t>(16, V * size_of(tensors[k].dtype()));
    if (reinterpret_cast<std::uintptr_t>(tensors[k].raw()) % static_cast<std::uintptr_t>(alignment) != 0)
      return false;
    if (layout.stride[k][0] != 1) return false;
    for (int d = 1; d < layout.rank; ++d) {
      if (layout.stride[k][d] % V != 0) return false;
    }
  }
  return true;
}

inline constexpr int elementwise_threads = 256, elementwise_unroll = 2;

/// F has: count, the number of tensors; load<V>(offsets), what it reads at these elements of each tensor, and
/// store<V>(offsets, loaded), which computes and writes. All loads of a thread come before its first store, so that
/// they are under way together; a tensor may be read and written, at the same elements.
template <int V, typename Index, typename F>
__global__ void __launch_bounds__(elementwise_threads)
    elementwise_kernel(const __grid_constant__ F f, const __grid_constant__ Layout<F::count> layout,
                       Index n) {
  const Index first =
      static_cast<Index>(blockIdx.x) * (elementwise_threads * elementwise_unroll) + threadIdx.x;
  std::int64_t at[elementwise_unroll][F::count];
  decltype(f.template load<V>(at[0])) loaded[elementwise_unroll];
#pragma unroll
  for (int u = 0; u < elementwise_unroll; ++u) {
    Index rest = first + u * elementwise_threads;
    if (rest >= n) continue;
    for (int k = 0; k < F::count; ++k) at[u][k] = 0;
#pragma unroll
    for (int d = 0; d < Tensor::max_rank; ++d) {
      if (d >= layout.rank) break;
      Index i = rest;
      if (d + 1 < layout.rank) {
        const Index size = static_cast<Index>(layout.size[d]);
        i = rest % size;
        rest /= size;
      }
#pragma unroll
      for (int k = 0; k < F::count; ++k) at[u][k] += static_cast<std::int64_t>(i) * layout.stride[k][d];
    }
    loaded[u] = f.template load<V>(at[u]);
  }
#pragma unroll
  for (int u = 0; u < elementwise_unroll; ++u) {
    if (first + u * elementwise_threads < n) f.template store<V>(at[u], loaded[u]);
  }
}

template <int V, typename F>
void launch_in_vectors(const F& f, Layout<F::count> layout, cudaStream_t stream) {
  layout.size[0] /= V;
  for (auto& stride : layout.stride) stride[0] *= V;
  std::int64_t n = 1;
  for (int d = 0; d < layout.rank; ++d) n *= layout.size[d];
  constexpr std::int64_t per_block = elementwise_threads * elementwise_unroll;
  const auto blocks = static_cast<unsigned>((n + per_block - 1) / per_block);
  if (n < std::numeric_limits<std::int32_t>::max()) {
    elementwise_kernel<V, std::uint32_t>
        <<<blocks, elementwise_threads, 0, stream>>>(f, layout, static_cast<std::uint32_t>(n));
  } else {
    elementwise_kernel<V, std::uint64_t>
        <<<blocks, elementwise_threads, 0, stream>>>(f, layout, static_cast<std::uint64_t>(n));
  }
}

/// Runs F over tensors of one shape, none without elements.
template <int V, typename F, std::size_t count>
void elementwise(const F& f, const std::array<Tensor, count>& tensors, cudaStream_t stream,
                 const char* name) {
  static_assert(F::count == count);
  const auto layout = common_layout(tensors);
  if (in_vectors<V>(layout, tensors)) {
    launch_in_vectors<V>(f, layout, stream);
  } else {
    launch_in_vectors<1>(f, layout, stream);
  }
  check_launch(name);
}

}  // namespace ratplus::cuda
