// Drawing of tokens, and their log-probabilities: a block takes a row and reads it, from the cache after the first time,
// as often as it needs to. Sums of weights are of whole numbers; sums of f32 have a fixed order.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/vector.cuh"
#include "kernels/sampling_weights.h"

namespace ratplus::cuda {
namespace {

constexpr int threads = 512, warps = threads / 32;
constexpr int no_token = 0x7fffffff;

__device__ __forceinline__ float infinity() {
  return __int_as_float(0x7f800000);
}
__device__ __forceinline__ float not_a_number() {
  return __int_as_float(0x7fc00000);
}
__device__ __forceinline__ int thread() {
  return static_cast<int>(threadIdx.x);
}

// --- reductions over the block, for all of its threads -----------------------------------------------------------

/// A logit and its token. The first of two is the larger logit, of equal ones the lower token.
struct Candidate {
  float logit;
  int token;
};

__device__ __forceinline__ bool before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

__device__ __forceinline__ Candidate first_of_block(Candidate mine) {
  __shared__ Candidate firsts[warps];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Candidate other{__shfl_xor_sync(~0u, mine.logit, offset), __shfl_xor_sync(~0u, mine.token, offset)};
    if (before(other, mine)) mine = other;
  }
  __syncthreads();  // nothing reads firsts of an earlier call any more
  if (thread() % 32 == 0) firsts[thread() / 32] = mine;
  __syncthreads();
  Candidate first = firsts[0];
  for (int w = 1; w < warps; ++w) {
    if (before(firsts[w], first)) first = firsts[w];
  }
  return first;
}

template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

template <typename T>
__device__ __forceinline__ T block_sum(T x) {
  __shared__ T sums[warps];
  x = warp_sum(x);
  __syncthreads();
  if (thread() % 32 == 0) sums[thread() / 32] = x;
  __syncthreads();
  T sum = sums[0];
  for (int w = 1; w < warps; ++w) sum += sums[w];
  return sum;
}

/// The first of a row; its token is -1 where the row holds NaN or +infinity, or -infinity alone.
template <typename T>
__device__ __forceinline__ Candidate first_of_row(const T* logits, int vocab) {
  Candidate mine{-infinity(), no_token};
  int bad = 0;
  for (int j = thread(); j < vocab; j += threads) {
    const Candidate other{to_float(logits[j]), j};
    if (!(other.logit < infinity())) bad = 1;
    if (before(other, mine)) mine = other;
  }
  bad = __syncthreads_or(bad);
  Candidate first = first_of_block(mine);
  if (bad != 0 || first.logit == -infinity()) first.token = -1;
  return first;
}

// --- penalties and bans ------------------------------------------------------------------------------------------

struct Adjustment {
  float* logits;
  std::int64_t stride;
  int rows, vocab;
  const std::int32_t *row, *token;
  const float *factor, *addend;
  std::int64_t entries;
};

__global__ void __launch_bounds__(threads) adjust_kernel(const __grid_constant__ Adjustment a) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + thread();
  if (i >= a.entries) return;
  const int row = a.row[i], token = a.token[i];
  if (row < 0 || row >= a.rows || token < 0 || token >= a.vocab) return;
  float& logit = a.logits[row * a.stride + token];
  logit =
      __fadd_rn(logit > 0.0f ? __fdiv_rn(logit, a.factor[i]) : __fmul_rn(logit, a.factor[i]), a.addend[i]);
}

// --- drawing -----------------------------------------------------------------------------------------------------

using Units = unsigned long long;

struct Draw {
  std::int32_t* tokens;
  const float* logits;
  std::int64_t stride;
  int vocab;
  const float* temperature;
  const std::int32_t* top_k;
  const float *top_p, *min_p, *uniform;
};

struct Row {
  const float* logits;
  int vocab;
  float largest;
  float temperature;

  __device__ __forceinline__ float weight(float logit) const {
    return expf(__fdiv_rn(logit - largest, temperature));
  }
  __device__ __forceinline__ static std::uint32_t key(float logit) {
    return order_key(__float_as_uint(logit));
  }
};

/// A logit's weight where its key is at least `least` and its weight at least min_p, else 0.
__device__ __forceinline__ Units units_of(const Row& row, float logit, std::uint32_t least, float min_p) {
  const float weight = row.weight(logit);
  return Row::key(logit) >= least && weight >= min_p ? weight_units(weight) : 0;
}

/// The largest key t for which the measures of the logits with keys from max(t, least) on add up to `need`, which is
/// positive; those from `least` on do. Each round keeps a quarter of the keys that it may still be.
template <typename Measure>
__device__ __forceinline__ std::uint32_t threshold(const Row& row, std::uint32_t least, Units need,
                                                   const Measure& measure) {
  std::uint64_t low = least, high = std::uint64_t{Row::key(row.largest)} + 1;
  while (high - low > 1) {
    const std::uint64_t width = high - low;
    const std::uint64_t first = low + width / 4, second = low + width / 2, third = low + width * 3 / 4;
    Units from_first = 0, from_second = 0, from_third = 0;
    for (int j = thread(); j < row.vocab; j += threads) {
      const float logit = row.logits[j];
      const std::uint32_t key = Row::key(logit);
      if (key < first) continue;  // at least low, so at least `least`
      const Units size = measure(logit);
      from_first += size;
      if (key >= second) from_second += size;
      if (key >= third) from_third += size;
    }
    from_first = block_sum(from_first), from_second = block_sum(from_second),
    from_third = block_sum(from_third);
    if (from_third >= need) {
      low = third;
    } else if (from_second >= need) {
      low = second, high = third;
    } else if (from_first >= need) {
      low = first, high = second;
    } else {
      high = first;
    }
  }
  return static_cast<std::uint32_t>(low);
}

__global__ void __launch_bounds__(threads) draw_kernel(const __grid_constant__ Draw a) {
  const std::int64_t i = blockIdx.x;
  const float* logits = a.logits + i * a.stride;
  const Candidate first = first_of_row(logits, a.vocab);
  const float temperature = a.temperature[i];
  if (first.token < 0 || temperature == 0.0f) {
    if (thread() == 0) a.tokens[i] = first.token;
    return;
  }
  const Row row{logits, a.vocab, first.logit, temperature};
  const int top_k = a.top_k[i];
  const float top_p = a.top_p[i], min_p = a.min_p[i];
  std::uint32_t least = 0;
  if (top_k > 0 && top_k < a.vocab) {
    least = threshold(row, least, static_cast<Units>(top_k), [](float) { return Units{1}; });
  }
  if (top_p < 1.0f) {
    Units mine = 0;
    for (int j = thread(); j < a.vocab; j += threads) mine += units_of(row, logits[j], least, 0.0f);
    const Units need = units_of_share(top_p, block_sum(mine));
    least =
        threshold(row, least, need, [&](float logit) -> Units { return weight_units(row.weight(logit)); });
  }

  // Each warp sums a segment of the tokens; the one whose segment holds the drawn unit looks for it there.
  __shared__ Units segments[warps];
  const int warp = thread() / 32, lane = thread() % 32;
  const int length = (a.vocab + warps - 1) / warps;
  const int begin = min(warp * length, a.vocab), end = min(begin + length, a.vocab);
  Units mine = 0;
  for (int j = begin + lane; j < end; j += 32) mine += units_of(row, logits[j], least, min_p);
  mine = warp_sum(mine);
  if (lane == 0) segments[warp] = mine;
  __syncthreads();
  Units total = 0, running = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp) running += segments[w];
    total += segments[w];
  }
  const Units target = drawn_units(a.uniform[i], total);
  if (target < running || target - running >= mine) return;
  for (int tile = begin; tile < end; tile += 32) {
    const int j = tile + lane;
    Units sum = j < end ? units_of(row, logits[j], least, min_p) : 0;  // of the tile, up to this lane
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const Units lower = __shfl_up_sync(~0u, sum, offset);
      if (lane >= offset) sum += lower;
    }
    const unsigned above = __ballot_sync(~0u, running + sum > target);
    if (above != 0) {
      if (lane == 0) a.tokens[i] = tile + __ffs(static_cast<int>(above)) - 1;
      return;
    }
    running += __shfl_sync(~0u, sum, 31);
  }
}

// --- scores ------------------------------------------------------------------------------------------------------

template <typename T>
struct Score {
  float* log_probability;
  std::int32_t* top_tokens;
  std::int64_t top_tokens_stride;
  float* tops;
  std::int64_t tops_stride;
  int n;
  const T* logits;
  std::int64_t stride;
  const std::int32_t* labels;
  int vocab;
};

/// A label outside the vocabulary, which the caller should have found, gives NaN.
template <typename T>
__global__ void __launch_bounds__(threads) score_kernel(const __grid_constant__ Score<T> a) {
  const std::int64_t i = blockIdx.x;
  const T* logits = a.logits + i * a.stride;
  const int label = a.labels[i];
  Candidate next = first_of_row(logits, a.vocab);
  if (next.token < 0) {
    if (thread() == 0) a.log_probability[i] = label < 0 ? 0.0f : not_a_number();
    for (int k = thread(); k < a.n; k += threads) {
      a.top_tokens[i * a.top_tokens_stride + k] = -1;
      a.tops[i * a.tops_stride + k] = not_a_number();
    }
    return;
  }
  const float largest = next.logit;
  float mine = 0.0f;
  for (int j = thread(); j < a.vocab; j += threads) mine += expf(to_float(logits[j]) - largest);
  const double log_sum = log(block_sum(static_cast<double>(mine)));
  const auto log_probability = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(largest) - log_sum);
  };
  if (thread() == 0) {
    a.log_probability[i] = label < 0         ? 0.0f
                           : label < a.vocab ? log_probability(to_float(logits[label]))
                                             : not_a_number();
  }
  // Each thread offers the first of its own logits after the last one that was taken.
  const auto first_after = [&](const Candidate& last) {
    Candidate found{-infinity(), no_token};
    for (int j = thread(); j < a.vocab; j += threads) {
      const Candidate other{to_float(logits[j]), j};
      if (before(last, other) && before(other, found)) found = other;
    }
    return found;
  };
  Candidate offered{-infinity(), no_token};
  for (int k = 0; k < a.n; ++k) {
    if (k == 1) offered = first_after(next);
    if (k > 1 && offered.token == next.token) offered = first_after(next);
    if (k > 0) next = first_of_block(offered);
    if (thread() == 0) {
      a.top_tokens[i * a.top_tokens_stride + k] = next.token;
      a.tops[i * a.tops_stride + k] = log_probability(next.logit);
    }
  }
}

}  // namespace

void CudaOps::compute(const operation::AdjustLogits& call) {
  const std::int64_t entries = call.row.size(0);
  if (entries == 0) return;
  adjust_kernel<<<static_cast<unsigned>(blocks_of(entries, threads)), threads, 0, stream_>>>(
      {call.logits.as<float>(), call.logits.stride(0), static_cast<int>(call.logits.size(0)),
       static_cast<int>(call.logits.size(1)), call.row.as<std::int32_t>(), call.token.as<std::int32_t>(),
       call.factor.as<float>(), call.addend.as<float>(), entries});
  check_launch("adjust_logits");
}

void CudaOps::compute(const operation::SampleTokens& call) {
  const std::int64_t rows = call.logits.size(0);
  if (rows == 0) return;
  draw_kernel<<<static_cast<unsigned>(rows), threads, 0, stream_>>>(
      {call.tokens.as<std::int32_t>(), call.logits.as<float>(), call.logits.stride(0),
       static_cast<int>(call.logits.size(1)), call.temperature.as<float>(), call.top_k.as<std::int32_t>(),
       call.top_p.as<float>(), call.min_p.as<float>(), call.uniform.as<float>()});
  check_launch("sample_tokens");
}

void CudaOps::compute(const operation::ScoreTokens& call) {
  const std::int64_t rows = call.logits.size(0), n = call.tops();
  if (rows == 0) return;
  with_type(call.logits.dtype() == DType::f32 ? DType::f32 : compute_, [&](auto example) {
    using T = decltype(example);
    score_kernel<T><<<static_cast<unsigned>(rows), threads, 0, stream_>>>(
        {call.log_probability.as<float>(), n > 0 ? call.top_tokens.as<std::int32_t>() : nullptr,
         n > 0 ? call.top_tokens.stride(0) : 0, n > 0 ? call.top_log_probability.as<float>() : nullptr,
         n > 0 ? call.top_log_probability.stride(0) : 0, static_cast<int>(n), elements<T>(call.logits),
         call.logits.stride(0), call.labels.as<std::int32_t>(), static_cast<int>(call.logits.size(1))});
  });
  check_launch("score_tokens");
}

}  // namespace ratplus::cuda
