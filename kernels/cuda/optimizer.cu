// AdamW, and sums for the gradient's norm. Bound by memory; floors: AdamW 30 bytes a parameter (gradient 4; master, m,
// v 8 each; bf16 weight 2), sums 4 bytes an element.
#include <cmath>

#include "kernels/adamw_update.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/digest_mix.h"

namespace ratplus::cuda {
namespace {

constexpr int V = 4;  // elements of a vector
constexpr int threads = 256;

// --- sums --------------------------------------------------------------------------------------------------------

// Whatever the GPU, so that the order of a sum is the same: 8 for each processor of an H100.
constexpr int sum_blocks = 1056;

__device__ __forceinline__ double block_sum(double x) {
  __shared__ double partial[threads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int w = 0; w < threads / 32; ++w) sum += partial[w];
  return sum;
}

template <bool squares>
__device__ __forceinline__ void add_term(double& sum, float x) {
  const double value = x;
  sum = squares ? fma(value, value, sum) : sum + value;
}

/// partial [sum_blocks]: a thread adds up vectors (elements, where x is not aligned) at a fixed distance.
template <bool squares>
__global__ void __launch_bounds__(threads)
    sum_kernel(double* partial, const float* x, std::int64_t n, bool aligned) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  constexpr std::int64_t distance = static_cast<std::int64_t>(sum_blocks) * threads;
  double sum = 0;
  const std::int64_t vectors = aligned ? n / V : 0;
  constexpr int unroll = 4;
  std::int64_t i = first;
  for (; i + (unroll - 1) * distance < vectors; i += unroll * distance) {
    Pack<float, V> values[unroll];
#pragma unroll
    for (int u = 0; u < unroll; ++u) values[u] = load<V>(x + (i + u * distance) * V);
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
#pragma unroll
      for (int j = 0; j < V; ++j) add_term<squares>(sum, values[u][j]);
    }
  }
  for (; i < vectors; i += distance) {
    const Pack<float, V> values = load<V>(x + i * V);
#pragma unroll
    for (int j = 0; j < V; ++j) add_term<squares>(sum, values[j]);
  }
  for (std::int64_t j = vectors * V + first; j < n; j += distance) add_term<squares>(sum, x[j]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// total += the sum of partial [sum_blocks]; one block.
__global__ void __launch_bounds__(threads) add_partials_kernel(double* total, const double* partial) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < (sum_blocks + threads - 1) / threads; ++i) {
    const int at = i * threads + static_cast<int>(threadIdx.x);
    if (at < sum_blocks) sum += partial[at];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total += sum;
}

template <bool squares>
void add_sum_to(const Tensor& total, const Tensor& x, void* scratch, cudaStream_t stream, const char* op) {
  auto* partial = static_cast<double*>(scratch);
  const float* data = x.as<float>();
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
  sum_kernel<squares><<<sum_blocks, threads, 0, stream>>>(partial, data, x.numel(), aligned);
  add_partials_kernel<<<1, threads, 0, stream>>>(total.as<double>(), partial);
  check_launch(op);
}

// --- digests -----------------------------------------------------------------------------------------------------

/// *digest += the mixes of x [n]; integers wrap, so that no order of the additions changes the sum.
template <typename Bits>
__global__ void __launch_bounds__(threads)
    digest_kernel(unsigned long long* digest, const Bits* x, std::int64_t n) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  constexpr std::int64_t distance = static_cast<std::int64_t>(sum_blocks) * threads;
  std::uint64_t sum = 0;
#pragma unroll 4
  for (std::int64_t i = first; i < n; i += distance) sum += digest_mix(static_cast<std::uint64_t>(i), x[i]);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (threadIdx.x % 32 == 0) atomicAdd(digest, static_cast<unsigned long long>(sum));
}

// --- AdamW -------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void update_one(float& master, float& m, float& v, float gradient,
                                           const AdamWFactors& f) {
  const float g = gradient * f.gradient;
  m = f.beta1 * m + f.one_minus_beta1 * g;
  v = f.beta2 * v + f.one_minus_beta2 * (g * g);
  master = master * f.decay - f.rate * (m / (sqrtf(v) * f.inverse_root_correction + f.eps));
}

/// weights of type W, or null. A thread takes n_each elements: a vector where memory allows, else one.
template <typename W, int n_each>
__global__ void __launch_bounds__(threads)
    adamw_kernel(float* master, float* m, float* v, W* weights, const float* gradient, std::int64_t n,
                 AdamWFactors f) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x) * n_each;
  if (i >= n) return;
  if (i + n_each <= n) {
    const auto gs = load<n_each>(gradient + i);
    auto masters = load<n_each>(static_cast<const float*>(master) + i);
    auto ms = load<n_each>(static_cast<const float*>(m) + i);
    auto vs = load<n_each>(static_cast<const float*>(v) + i);
    Pack<W, n_each> out;
#pragma unroll
    for (int j = 0; j < n_each; ++j) {
      update_one(masters.element[j], ms.element[j], vs.element[j], gs.element[j], f);
      out.set(j, masters[j]);
    }
    store(master + i, masters);
    store(m + i, ms);
    store(v + i, vs);
    if (weights) store(weights + i, out);
    return;
  }
  for (std::int64_t j = i; j < n; ++j) {  // the last thread's rest
    float value = master[j];
    update_one(value, m[j], v[j], gradient[j], f);
    master[j] = value;
    if (weights) weights[j] = from_float<W>(value);
  }
}

template <typename W>
void launch_adamw(const Tensor& master, const Tensor& m, const Tensor& v, W* weights, const Tensor& gradient,
                  const AdamWFactors& factors, cudaStream_t stream) {
  const std::int64_t n = master.size(0);
  bool aligned = reinterpret_cast<std::uintptr_t>(weights) % (V * sizeof(W)) == 0;
  for (const Tensor* tensor : {&master, &m, &v, &gradient}) {
    aligned = aligned && reinterpret_cast<std::uintptr_t>(tensor->raw()) % 16 == 0;
  }
  const auto launch = [&](auto each) {
    constexpr int n_each = each;
    const std::int64_t per_block = threads * n_each;
    adamw_kernel<W, n_each><<<static_cast<unsigned>((n + per_block - 1) / per_block), threads, 0, stream>>>(
        master.as<float>(), m.as<float>(), v.as<float>(), weights, gradient.as<float>(), n, factors);
  };
  if (aligned) {
    launch(std::integral_constant<int, V>{});
  } else {
    launch(std::integral_constant<int, 1>{});
  }
}

}  // namespace

std::int64_t reduction_scratch() {
  return sum_blocks * static_cast<std::int64_t>(sizeof(double));
}

void CudaOps::compute(const operation::AddSum& call) {
  const Tensor &total = call.total, &x = call.x;
  if (x.numel() == 0) return;
  add_sum_to<false>(total, x, scratch(reduction_scratch(), "add_sum"), stream_, "add_sum");
}

void CudaOps::compute(const operation::AddSumOfSquares& call) {
  const Tensor &total = call.total, &x = call.x;
  if (x.numel() == 0) return;
  add_sum_to<true>(total, x, scratch(reduction_scratch(), "add_sum_of_squares"), stream_,
                   "add_sum_of_squares");
}

void CudaOps::compute(const operation::AddDigest& call) {
  const Tensor& x = call.x;
  if (x.numel() == 0) return;
  auto* digest = reinterpret_cast<unsigned long long*>(call.digest.as<std::int32_t>());
  if (x.dtype() == DType::bf16) {
    digest_kernel<<<sum_blocks, threads, 0, stream_>>>(digest, static_cast<const std::uint16_t*>(x.raw()),
                                                       x.numel());
  } else {
    digest_kernel<<<sum_blocks, threads, 0, stream_>>>(digest, static_cast<const std::uint32_t*>(x.raw()),
                                                       x.numel());
  }
  check_launch("add_digest");
}

void CudaOps::compute(const operation::AdamWUpdate& call) {
  const Tensor &master = call.master, &m = call.m, &v = call.v, &weights = call.weights,
               &gradient = call.gradient;
  const AdamW& update = call.update;
  const bool copies = call.copies();
  if (master.size(0) == 0) return;
  const AdamWFactors factors(update);
  if (copies && weights.dtype() == DType::bf16) {
    launch_adamw(master, m, v, elements<bf16>(weights), gradient, factors, stream_);
  } else {
    launch_adamw(master, m, v, copies ? weights.as<float>() : nullptr, gradient, factors, stream_);
  }
  check_launch("adamw");
}

}  // namespace ratplus::cuda
