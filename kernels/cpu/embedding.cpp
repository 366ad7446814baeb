// The token embedding: rows of a table, and their gradient.
#include <algorithm>
#include <type_traits>

#include "base/error.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu_ops.h"

namespace ratplus::cpu {
namespace {

void check_tokens(const Tensor& tokens, std::int64_t vocab, const char* op) {
  const auto* ids = tokens.as<std::int32_t>();
  for (std::int64_t i = 0; i < tokens.size(0); ++i) {
    require(ids[i] >= 0 && ids[i] < vocab, "{}: token {} of row {} is outside the vocabulary of {}", op,
            ids[i], i, vocab);
  }
}

}  // namespace

void CpuOps::compute(const operation::EmbeddingForward& call) {
  const Tensor &x = call.x, &tokens = call.tokens, &table = call.table;
  const std::int64_t rows = x.size(0), width = x.size(1);
  check_tokens(tokens, table.size(0), "embedding_forward");
  const auto* ids = tokens.as<std::int32_t>();
  float* out = x.as<float>();
  const auto copy_rows = [&]<typename T>(const T* in) {
#pragma omp parallel for schedule(static) num_threads(threads_) if (rows * width > 16384)
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* const row = in + ids[i] * table.stride(0);
      std::transform(row, row + width, out + i * x.stride(0), [](T element) {
        if constexpr (std::is_same_v<T, float>) {
          return element;
        } else {
          return to_float(element);
        }
      });
    }
  };
  table.dtype() == DType::bf16 ? copy_rows(table.as<bf16_t>()) : copy_rows(table.as<float>());
}

void CpuOps::compute(const operation::EmbeddingBackward& call) {
  const Tensor &dtable = call.dtable, &dx = call.dx, &tokens = call.tokens;
  const std::int64_t rows = dx.size(0), width = dx.size(1);
  check_tokens(tokens, dtable.size(0), "embedding_backward");
  const auto* ids = tokens.as<std::int32_t>();
  float* out = dtable.as<float>();
  const float* in = dx.as<float>();
  // A token may occur often: each thread takes some columns of all rows, so that no two meet and the order of
  // the sum is that of the rows. Blocks of columns are whole cache lines.
  constexpr std::int64_t line = 16;
  const std::int64_t block = std::max(line, (width / threads_ + line - 1) / line * line);
#pragma omp parallel for schedule(static) num_threads(threads_) if (rows * width > 16384)
  for (std::int64_t begin = 0; begin < width; begin += block) {
    const std::int64_t end = std::min(begin + block, width);
    for (std::int64_t i = 0; i < rows; ++i) {
      float* sum = out + ids[i] * dtable.stride(0);
      const float* row = in + i * dx.stride(0);
#pragma omp simd
      for (std::int64_t j = begin; j < end; ++j) sum[j] += row[j];
    }
  }
}

}  // namespace ratplus::cpu
