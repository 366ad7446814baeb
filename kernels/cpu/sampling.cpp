// Drawing of tokens, and their log-probabilities. A thread takes a row; within it, sums of f32 have a fixed order, and all
// others are of whole numbers.
#include <omp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/sampling_weights.h"

namespace ratplus::cpu {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

/// The largest of a row, or NaN where the row has no distribution: it holds NaN or +infinity, or -infinity alone.
float largest_of(const float* x, std::int64_t n) {
  float largest = -infinity;
  int bad = 0, any = 0;  // some compilers' parts of a maximum begin with the lowest finite number
#pragma omp simd reduction(max : largest) reduction(| : bad, any)
  for (std::int64_t j = 0; j < n; ++j) {
    largest = x[j] > largest ? x[j] : largest;
    bad |= x[j] < infinity ? 0 : 1;
    any |= x[j] > -infinity ? 1 : 0;
  }
  return bad != 0 || any == 0 ? not_a_number : largest;
}

// --- drawing -----------------------------------------------------------------------------------------------------

void weigh(const float* logits, std::int64_t n, float largest, float temperature, float* weights) {
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) weights[j] = exp((logits[j] - largest) / temperature);
}

/// A row's logits and weights.
struct Row {
  const float* logits;
  const float* weights;
  std::int64_t vocab;
  float largest;  ///< logit
};

/// The weight of one logit where that is at least `least` and the weight at least min_p, else 0.
inline float kept_weight(float logit, float weight, float least, float min_p) {
  return ((logit >= least) & (weight >= min_p)) != 0 ? weight : 0.0f;
}

/// Sum, in units, of the weights that are kept of [begin, end).
std::uint64_t units_of(const Row& row, std::int64_t begin, std::int64_t end, float least, float min_p) {
  const float *logits = row.logits, *weights = row.weights;
  std::int64_t sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = begin; j < end; ++j) {
    sum += static_cast<std::int64_t>(kept_weight(logits[j], weights[j], least, min_p) * 0x1p40f);
  }
  return static_cast<std::uint64_t>(sum);
}

/// Logits that are at least `least`.
std::uint64_t count_of(const Row& row, float least) {
  std::int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = 0; j < row.vocab; ++j) sum += row.logits[j] >= least ? 1 : 0;
  return static_cast<std::uint64_t>(sum);
}

/// The largest logit t for which sum_from(max(t, least)) is at least `need`, which sum_from(least) is: by halving the keys
/// that it may have.
template <typename SumFrom>
float threshold(const Row& row, float least, std::uint64_t need, const SumFrom& sum_from) {
  const auto key_of = [](float logit) { return order_key(std::bit_cast<std::uint32_t>(logit)); };
  const auto logit_of = [](std::uint32_t key) {
    return std::bit_cast<float>((key & 0x80000000U) != 0 ? key & 0x7FFFFFFFU : ~key);
  };
  std::uint32_t low = key_of(least), high = key_of(row.largest) + 1;
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    (sum_from(logit_of(middle)) >= need ? low : high) = middle;
  }
  return logit_of(low);
}

std::int32_t draw(const Row& row, std::int32_t top_k, float top_p, float min_p, float uniform) {
  float least = -infinity;
  if (top_k > 0 && top_k < row.vocab) {
    least = threshold(row, least, static_cast<std::uint64_t>(top_k),
                      [&](float logit) { return count_of(row, logit); });
  }
  const auto sum_from = [&](float logit) { return units_of(row, 0, row.vocab, logit, 0); };
  if (top_p < 1) least = threshold(row, least, units_of_share(top_p, sum_from(least)), sum_from);
  const std::uint64_t target = drawn_units(uniform, units_of(row, 0, row.vocab, least, min_p));
  constexpr std::int64_t piece = 1024;
  std::uint64_t running = 0;
  for (std::int64_t begin = 0; begin < row.vocab; begin += piece) {
    const std::int64_t end = std::min(begin + piece, row.vocab);
    const std::uint64_t after = running + units_of(row, begin, end, least, min_p);
    if (after <= target) {
      running = after;
      continue;
    }
    for (std::int64_t j = begin; j < end; ++j) {
      running += weight_units(kept_weight(row.logits[j], row.weights[j], least, min_p));
      if (running > target) return static_cast<std::int32_t>(j);
    }
  }
  return -1;
}

// --- scores ------------------------------------------------------------------------------------------------------

/// log of the sum of e^(x - shift): in f32 over short pieces, in float64 over the pieces.
double log_sum_exp(const float* x, std::int64_t n, float shift) {
  constexpr std::int64_t lanes = 16, piece = 1024;
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += piece) {
    const std::int64_t end = std::min(begin + piece, n);
    std::array<float, lanes> sums{};
    std::int64_t at = begin;
    for (; at + lanes <= end; at += lanes) {
#pragma omp simd
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        sums[static_cast<std::size_t>(lane)] += exp(x[at + lane] - shift);
      }
    }
    for (; at < end; ++at) sums[0] += exp(x[at] - shift);
    for (const float sum : sums) total += sum;
  }
  return std::log(total);
}

struct Distribution {
  float largest;
  double log_sum;

  float log_probability(float logit) const {
    return static_cast<float>(static_cast<double>(logit) - static_cast<double>(largest) - log_sum);
  }
};

/// The n largest, in order, into tokens and values.
void find_tops(const float* x, std::int64_t vocab, std::int32_t* tokens, float* values, std::int64_t n) {
  std::int64_t found = 0;
  for (std::int64_t j = 0; j < vocab; ++j) {
    if (found == n && !(x[j] > values[n - 1])) continue;
    std::int64_t at = found < n ? found++ : n - 1;
    for (; at > 0 && x[j] > values[at - 1]; --at) {
      values[at] = values[at - 1];
      tokens[at] = tokens[at - 1];
    }
    values[at] = x[j];
    tokens[at] = static_cast<std::int32_t>(j);
  }
}

}  // namespace

void CpuOps::compute(const operation::AdjustLogits& call) {
  const std::int64_t entries = call.row.size(0), rows = call.logits.size(0), vocab = call.logits.size(1);
  if (entries == 0) return;
  const auto *row = call.row.as<std::int32_t>(), *token = call.token.as<std::int32_t>();
  const auto *factor = call.factor.as<float>(), *addend = call.addend.as<float>();
  for (std::int64_t i = 0; i < entries; ++i) {
    require(row[i] >= 0 && row[i] < rows && token[i] >= 0 && token[i] < vocab,
            "adjust_logits: entry {} is (row {}, token {}), outside {} rows of {}", i, row[i], token[i], rows,
            vocab);
    float& logit = call.logits.as<float>()[row[i] * call.logits.stride(0) + token[i]];
    logit = (logit > 0 ? logit / factor[i] : logit * factor[i]) + addend[i];
  }
}

void CpuOps::compute(const operation::SampleTokens& call) {
  const std::int64_t rows = call.logits.size(0), vocab = call.logits.size(1);
  if (rows == 0) return;
  auto* token = call.tokens.as<std::int32_t>();
  const auto *temperature = call.temperature.as<float>(), *top_p = call.top_p.as<float>(),
             *min_p = call.min_p.as<float>(), *uniform = call.uniform.as<float>();
  const auto* top_k = call.top_k.as<std::int32_t>();
  const int threads = static_cast<int>(std::min<std::int64_t>(threads_, rows));
  std::vector<float> all_weights(static_cast<std::size_t>(threads * vocab));  // of each thread's row
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (rows * vocab > 16384)
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* logits = call.logits.as<float>() + i * call.logits.stride(0);
    const float largest = largest_of(logits, vocab);
    if (std::isnan(largest)) {
      token[i] = -1;
    } else if (temperature[i] == 0) {
      token[i] = static_cast<std::int32_t>(std::find(logits, logits + vocab, largest) - logits);
    } else {
      float* weights = all_weights.data() + omp_get_thread_num() * vocab;
      weigh(logits, vocab, largest, temperature[i], weights);
      token[i] = draw({logits, weights, vocab, largest}, top_k[i], top_p[i], min_p[i], uniform[i]);
    }
  }
}

void CpuOps::compute(const operation::ScoreTokens& call) {
  const std::int64_t rows = call.logits.size(0), vocab = call.logits.size(1), n = call.tops();
  if (rows == 0) return;
  const auto* label = call.labels.as<std::int32_t>();
  auto* score = call.log_probability.as<float>();
  for (std::int64_t i = 0; i < rows; ++i) {
    require(label[i] < vocab, "score_tokens: label {} of row {} is outside the vocabulary of {}", label[i], i,
            vocab);
  }
#pragma omp parallel for schedule(static) num_threads(threads_) if (rows * vocab > 16384)
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* x = call.logits.as<float>() + i * call.logits.stride(0);
    auto* tokens = n > 0 ? call.top_tokens.as<std::int32_t>() + i * call.top_tokens.stride(0) : nullptr;
    auto* tops =
        n > 0 ? call.top_log_probability.as<float>() + i * call.top_log_probability.stride(0) : nullptr;
    const float largest = largest_of(x, vocab);
    if (std::isnan(largest)) {
      score[i] = label[i] < 0 ? 0 : not_a_number;
      std::fill_n(tokens, n, -1);
      std::fill_n(tops, n, not_a_number);
      continue;
    }
    const Distribution row{largest, log_sum_exp(x, vocab, largest)};
    score[i] = label[i] < 0 ? 0 : row.log_probability(x[label[i]]);
    if (n > 0) find_tops(x, vocab, tokens, tops, n);
    for (std::int64_t j = 0; j < n; ++j) tops[j] = row.log_probability(tops[j]);
  }
}

}  // namespace ratplus::cpu
