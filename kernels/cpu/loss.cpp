// Cross-entropy of the next token (docs/model.md, section 10).
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"

namespace ratplus::cpu {
namespace {

float largest(const float* x, std::int64_t n) {
  float result = x[0];
#pragma omp simd reduction(max : result)
  for (std::int64_t j = 0; j < n; ++j) result = x[j] > result ? x[j] : result;
  return result;
}

/// Sum of e^(x - shift) in float64 over pieces that are short enough for float32; with `keep`, x becomes the
/// terms.
template <bool keep>
double sum_of_exp(float* x, std::int64_t n, float shift) {
  constexpr std::int64_t piece = 1024;
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += piece) {
    const std::int64_t end = std::min(begin + piece, n);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = begin; j < end; ++j) {
      const float term = exp(x[j] - shift);
      if constexpr (keep) x[j] = term;
      sum += term;
    }
    total += sum;
  }
  return total;
}

/// The loss of one row; with `gradient`, its logits become scale (softmax - onehot).
template <bool gradient>
float row_loss(float* x, std::int64_t vocab, std::int32_t label, double scale) {
  const float shift = largest(x, vocab);
  const float at_label = x[label] - shift;
  const double total = sum_of_exp<gradient>(x, vocab, shift);
  if constexpr (gradient) {
    const auto factor = static_cast<float>(scale / total);
#pragma omp simd
    for (std::int64_t j = 0; j < vocab; ++j) x[j] *= factor;
    x[label] -= static_cast<float>(scale);
  }
  return static_cast<float>(std::log(total) - at_label);
}

/// Whether x[label] is the largest, the first of equal ones, and nothing is NaN.
bool is_hit(const float* x, std::int64_t vocab, std::int32_t label) {
  const float at_label = x[label];
  for (std::int64_t j = 0; j < label; ++j) {
    if (!(x[j] < at_label)) return false;
  }
  for (std::int64_t j = label; j < vocab; ++j) {
    if (!(x[j] <= at_label)) return false;
  }
  return true;
}

void require_inside(const std::int32_t* labels, std::int64_t rows, std::int64_t vocab, const char* op) {
  for (std::int64_t i = 0; i < rows; ++i) {
    require(labels[i] < vocab, "{}: label {} of row {} is outside the vocabulary of {}", op, labels[i], i,
            vocab);
  }
}

}  // namespace

void CpuOps::compute(const operation::CrossEntropy& call) {
  const Tensor &losses = call.losses, &logits = call.logits, &labels = call.labels;
  const double scale = call.scale;
  const bool want_gradient = call.want_gradient;
  const std::int64_t rows = logits.size(0), vocab = logits.size(1);
  const auto* label = labels.as<std::int32_t>();
  require_inside(label, rows, vocab, "cross_entropy");
#pragma omp parallel for schedule(static) num_threads(threads_) if (rows * vocab > 16384)
  for (std::int64_t i = 0; i < rows; ++i) {
    float* row = logits.as<float>() + i * logits.stride(0);
    float& loss = losses.as<float>()[i];
    if (label[i] < 0) {
      loss = 0;
      if (want_gradient) std::fill(row, row + vocab, 0.0f);
    } else {
      loss = want_gradient ? row_loss<true>(row, vocab, label[i], scale)
                           : row_loss<false>(row, vocab, label[i], scale);
    }
  }
}

void CpuOps::compute(const operation::Hits& call) {
  const Tensor &hits = call.hits, &logits = call.logits, &labels = call.labels;
  const std::int64_t rows = logits.size(0), vocab = logits.size(1);
  const auto* label = labels.as<std::int32_t>();
  auto* hit = hits.as<std::int32_t>();
  require_inside(label, rows, vocab, "hits");
#pragma omp parallel for schedule(static) num_threads(threads_) if (rows * vocab > 16384)
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row = logits.as<float>() + i * logits.stride(0);
    hit[i] = label[i] >= 0 && is_hit(row, vocab, label[i]) ? 1 : 0;
  }
}

}  // namespace ratplus::cpu
