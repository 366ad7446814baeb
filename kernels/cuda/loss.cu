// Cross-entropy of the next token (docs/model.md, section 10), logits [N, V] in C or f32.
//
// A block takes one row and keeps it packed in registers between the sum of its exponentials and its gradient: each
// logit is read once and, with the gradient, written once, the floor (bf16: 4 bytes a logit). Every thread sums
// relative to its own maximum, so that one exchange across the block gives both the maximum and the sum. Rows that
// are no whole vectors, or too long for registers, take a kernel that reads them again.
#include <cfloat>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/vector.cuh"

namespace ratplus::cuda {
namespace {

constexpr int threads = 512, warps = threads / 32;

template <typename T>
struct Loss {
  float* losses;
  T* logits;
  std::int64_t stride;
  const std::int32_t* labels;
  int vocab;
  float scale;
  bool gradient;
};

/// Sum of e^(x - max) over some logits, with their maximum (finite, so that nothing plus nothing stays nothing).
struct Sum {
  float max = -FLT_MAX;
  float sum = 0.0f;
};

__device__ __forceinline__ Sum join(const Sum& a, const Sum& b) {
  const float max = fmaxf(a.max, b.max);
  // Not fused, so that join(b, a) has the same bits.
  return {max, __fadd_rn(__fmul_rn(a.sum, exp_fast(a.max - max)), __fmul_rn(b.sum, exp_fast(b.max - max)))};
}

/// Over the block, for all of its threads.
__device__ __forceinline__ Sum join_block(Sum mine) {
  __shared__ float maxima[warps], sums[warps];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    mine = join(mine, {__shfl_xor_sync(~0u, mine.max, offset), __shfl_xor_sync(~0u, mine.sum, offset)});
  }
  if (threadIdx.x % 32 == 0) {
    maxima[threadIdx.x / 32] = mine.max;
    sums[threadIdx.x / 32] = mine.sum;
  }
  __syncthreads();
  // Each warp joins the warps' sums again, as it did those of its lanes.
  static_assert(warps == 16);
  Sum all{maxima[threadIdx.x % warps], sums[threadIdx.x % warps]};
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) {
    all = join(all, {__shfl_xor_sync(~0u, all.max, offset), __shfl_xor_sync(~0u, all.sum, offset)});
  }
  return all;
}

/// -log of the label's probability. A label outside the vocabulary, which the caller should have found, gives NaN.
__device__ __forceinline__ float loss_of(const Sum& all, float at_label, bool inside) {
  return inside ? logf(all.sum) + (all.max - at_label) : __int_as_float(0x7fc00000);
}

/// The elements of 16 bytes.
template <typename T>
__device__ __forceinline__ void unpack(const uint4& raw, float (&x)[16 / sizeof(T)]) {
  if constexpr (sizeof(T) == 4) {
    x[0] = __uint_as_float(raw.x), x[1] = __uint_as_float(raw.y);
    x[2] = __uint_as_float(raw.z), x[3] = __uint_as_float(raw.w);
  } else {
    const auto low = [](unsigned word) { return __uint_as_float(word << 16); };
    const auto high = [](unsigned word) { return __uint_as_float(word & 0xffff0000u); };
    x[0] = low(raw.x), x[1] = high(raw.x), x[2] = low(raw.y), x[3] = high(raw.y);
    x[4] = low(raw.z), x[5] = high(raw.z), x[6] = low(raw.w), x[7] = high(raw.w);
  }
}

/// V / (16 / sizeof(T)) vectors of 16 bytes, at most `vectors` a thread.
template <typename T, int vectors>
__global__ void __launch_bounds__(threads, vectors <= 8 ? 2 : 1)
    cross_entropy_kernel(const __grid_constant__ Loss<T> a) {
  constexpr int n = 16 / sizeof(T);
  using Vector = Pack<T, n>;
  const std::int64_t row = blockIdx.x;
  T* logits = a.logits + row * a.stride;
  const int label = a.labels[row], count = a.vocab / n;
  const auto at = [](int i) { return static_cast<int>(threadIdx.x) + i * threads; };
  if (label < 0) {
    if (threadIdx.x == 0) a.losses[row] = 0.0f;
    if (!a.gradient) return;
    Vector zeros;
#pragma unroll
    for (int j = 0; j < n; ++j) zeros.set(j, 0.0f);
    for (int c = at(0); c < count; c += threads) store(logits + c * n, zeros);
    return;
  }
  uint4 words[vectors];  // raw: two bf16 to a register
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (at(i) < count) words[i] = *reinterpret_cast<const uint4*>(logits + at(i) * n);
  }
  // The thread that holds the label's vector.
  const bool inside = label < a.vocab,
             owner = static_cast<int>(threadIdx.x) == (inside ? label / n % threads : 0);
  const float at_label = owner && inside ? to_float(logits[label]) : 0.0f;

  Sum mine;
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (at(i) >= count) continue;
    float x[n];
    unpack<T>(words[i], x);
#pragma unroll
    for (int j = 0; j < n; ++j) mine.max = fmaxf(mine.max, x[j]);
  }
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (at(i) >= count) continue;
    float x[n];
    unpack<T>(words[i], x);
#pragma unroll
    for (int j = 0; j < n; ++j) mine.sum += exp_fast(x[j] - mine.max);
  }
  const Sum all = join_block(mine);
  if (owner) a.losses[row] = loss_of(all, at_label, inside);
  if (!a.gradient) return;

  const float factor = a.scale / all.sum;
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (at(i) >= count) continue;
    float x[n];
    unpack<T>(words[i], x);
#pragma unroll
    for (int j = 0; j < n; ++j) x[j] = exp_fast(x[j] - all.max) * factor;
    Vector out;
#pragma unroll
    for (int j = 0; j < n; ++j) out.set(j, x[j]);
    store(logits + at(i) * n, out);
  }
  if (owner && inside) logits[label] = from_float<T>(exp_fast(at_label - all.max) * factor - a.scale);
}

/// Any V and alignment.
template <typename T>
__global__ void __launch_bounds__(threads) cross_entropy_plain_kernel(const __grid_constant__ Loss<T> a) {
  const std::int64_t row = blockIdx.x;
  T* logits = a.logits + row * a.stride;
  const int label = a.labels[row], first = static_cast<int>(threadIdx.x);
  if (label < 0) {
    if (threadIdx.x == 0) a.losses[row] = 0.0f;
    if (!a.gradient) return;
    for (int j = first; j < a.vocab; j += threads) logits[j] = from_float<T>(0.0f);
    return;
  }
  const bool inside = label < a.vocab;
  const float at_label = threadIdx.x == 0 && inside ? to_float(logits[label]) : 0.0f;
  Sum mine;
  for (int j = first; j < a.vocab; j += threads) mine.max = fmaxf(mine.max, to_float(logits[j]));
  for (int j = first; j < a.vocab; j += threads) mine.sum += exp_fast(to_float(logits[j]) - mine.max);
  const Sum all = join_block(mine);
  if (threadIdx.x == 0) a.losses[row] = loss_of(all, at_label, inside);
  if (!a.gradient) return;
  const float factor = a.scale / all.sum;
  for (int j = first; j < a.vocab; j += threads) {
    const float term = exp_fast(to_float(logits[j]) - all.max) * factor;
    logits[j] = from_float<T>(j == label ? term - a.scale : term);
  }
}

template <typename T>
void launch(const Loss<T>& a, std::int64_t rows, cudaStream_t stream) {
  constexpr int n = 16 / sizeof(T);
  const bool aligned = reinterpret_cast<std::uintptr_t>(a.logits) % 16 == 0 &&
                       (rows == 1 || a.stride % n == 0) && a.vocab % n == 0;
  const auto blocks = static_cast<unsigned>(rows);
  if (aligned && a.vocab / n <= 8 * threads) {
    cross_entropy_kernel<T, 8><<<blocks, threads, 0, stream>>>(a);
  } else if (aligned && a.vocab / n <= 16 * threads) {
    cross_entropy_kernel<T, 16><<<blocks, threads, 0, stream>>>(a);
  } else {
    cross_entropy_plain_kernel<T><<<blocks, threads, 0, stream>>>(a);
  }
  check_launch("cross_entropy");
}

/// One block a row. A label outside the vocabulary is a miss.
template <typename T>
__global__ void __launch_bounds__(threads)
    hits_kernel(std::int32_t* hits, const T* all_logits, std::int64_t stride, const std::int32_t* labels,
                int vocab) {
  const std::int64_t row = blockIdx.x;
  const T* logits = all_logits + row * stride;
  const int label = labels[row];
  if (label < 0 || label >= vocab) {
    if (threadIdx.x == 0) hits[row] = 0;
    return;
  }
  const float at_label = to_float(logits[label]);
  int miss = 0;
  for (int j = static_cast<int>(threadIdx.x); j < vocab; j += threads) {
    const float x = to_float(logits[j]);
    if (!(j < label ? x < at_label : x <= at_label)) miss = 1;  // so written, NaN is one
  }
  miss = __syncthreads_or(miss);
  if (threadIdx.x == 0) hits[row] = miss == 0 ? 1 : 0;
}

}  // namespace

void CudaOps::compute(const operation::CrossEntropy& call) {
  const Tensor &losses = call.losses, &logits = call.logits, &labels = call.labels;
  const double scale = call.scale;
  const bool want_gradient = call.want_gradient;
  const DType type = logits.dtype() == DType::f32 ? DType::f32 : compute_;
  const std::int64_t rows = logits.size(0), vocab = logits.size(1);
  if (rows * vocab == 0) return;
  with_type(type, [&](auto example) {
    using T = decltype(example);
    launch<T>({losses.as<float>(), elements<T>(logits), logits.stride(0), labels.as<std::int32_t>(),
               static_cast<int>(vocab), static_cast<float>(scale), want_gradient},
              rows, stream_);
  });
}

void CudaOps::compute(const operation::Hits& call) {
  const Tensor &hits = call.hits, &logits = call.logits, &labels = call.labels;
  const DType type = logits.dtype() == DType::f32 ? DType::f32 : compute_;
  const std::int64_t rows = logits.size(0), vocab = logits.size(1);
  if (rows * vocab == 0) return;
  with_type(type, [&](auto example) {
    using T = decltype(example);
    hits_kernel<T><<<static_cast<unsigned>(rows), threads, 0, stream_>>>(
        hits.as<std::int32_t>(), elements<T>(logits), logits.stride(0), labels.as<std::int32_t>(),
        static_cast<int>(vocab));
  });
  check_launch("hits");
}

}  // namespace ratplus::cuda
