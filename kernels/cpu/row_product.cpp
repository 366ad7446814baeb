// Products of inference: every element is a sum over k in one order, whatever rows are computed beside it.
#include <algorithm>
#include <array>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/simd.h"

namespace ratplus::cpu {
namespace {

constexpr int block_rows = 4;                             // of x
constexpr int block_columns = vec_width == 16 ? 4 : 2;    // rows of w; 16 or 8 sums in registers
constexpr std::int64_t inner_block = 512;                 // of k: a block's rows of x and w stay in the first-level cache
constexpr std::int64_t tile_rows = 32;                    // of x: read again, from the second-level cache, for each row of w

/// sums [rows][columns] += products of k elements, k a multiple of vec_width: each element in one register, from its first
/// k to its last.
template <int rows, int columns>
void add_products(Vec* sums, const float* x, std::int64_t ldx, const float* w, std::int64_t ldw,
                  std::int64_t k) {
  Vec local[rows][columns];
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) local[i][j] = sums[i * block_columns + j];
  }
  for (std::int64_t l = 0; l < k; l += vec_width) {
    Vec right[columns];
#pragma GCC unroll 4
    for (int j = 0; j < columns; ++j) right[j] = load(w + j * ldw + l);
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) {
      const Vec left = load(x + i * ldx + l);
#pragma GCC unroll 4
      for (int j = 0; j < columns; ++j) local[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) sums[i * block_columns + j] = local[i][j];
  }
}

using AddProducts = void (*)(Vec*, const float*, std::int64_t, const float*, std::int64_t, std::int64_t);

template <int columns>
constexpr std::array<AddProducts, block_rows> by_rows() {
  return {&add_products<1, columns>, &add_products<2, columns>, &add_products<3, columns>,
          &add_products<4, columns>};
}

/// The sum of a vector's elements, halves first.
float total(const Vec& vector) {
  std::array<float, vec_width> parts;
  store(parts.data(), vector);
  for (std::int64_t width = vec_width / 2; width > 0; width /= 2) {
    for (std::int64_t i = 0; i < width; ++i)
      parts[static_cast<std::size_t>(i)] += parts[static_cast<std::size_t>(i + width)];
  }
  return parts[0];
}

/// y [rows, columns] of rows [row, row + rows) of x, at most tile_rows, and of `columns` rows of w.
template <int columns>
void tile_product(const operation::RowProduct& call, std::int64_t row, std::int64_t rows,
                  std::int64_t column) {
  static constexpr auto kernels = by_rows<columns>();
  const std::int64_t inner = call.x.size(1), whole = inner / vec_width * vec_width;
  const std::int64_t ldx = call.x.stride(0);
  const float* x = call.x.as<float>() + row * ldx;
  const float* w = call.w.as<float>() + column * inner;
  std::array<Vec, tile_rows * block_columns> sums;
  sums.fill(Vec{});
  for (std::int64_t l = 0; l < whole; l += inner_block) {
    const std::int64_t k = std::min(inner_block, whole - l);
    for (std::int64_t i = 0; i < rows; i += block_rows) {
      const auto n = static_cast<std::size_t>(std::min<std::int64_t>(block_rows, rows - i));
      kernels[n - 1](sums.data() + i * block_columns, x + i * ldx + l, ldx, w + l, inner, k);
    }
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      float sum = total(sums[static_cast<std::size_t>(i * block_columns + j)]);
      for (std::int64_t l = whole; l < inner; ++l) sum += x[i * ldx + l] * w[j * inner + l];
      call.y.as<float>()[(row + i) * call.y.stride(0) + column + j] = sum;
    }
  }
}

}  // namespace

void CpuOps::compute(const operation::RowProduct& call) {
  const std::int64_t rows = call.y.size(0), columns = call.y.size(1);
  const std::int64_t blocks = (columns + block_columns - 1) / block_columns;
#pragma omp parallel for schedule(static) num_threads(threads_)
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t column = block * block_columns;
    for (std::int64_t row = 0; row < rows; row += tile_rows) {
      const std::int64_t n = std::min(tile_rows, rows - row);
      if (columns - column >= block_columns) {
        tile_product<block_columns>(call, row, n, column);
      } else {
        for (std::int64_t j = column; j < columns; ++j) tile_product<1>(call, row, n, j);
      }
    }
  }
}

}  // namespace ratplus::cpu
