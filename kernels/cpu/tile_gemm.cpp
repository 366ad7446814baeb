#include "kernels/cpu/tile_gemm.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/cpu/simd.h"

namespace ratplus::cpu {
namespace {

// The result block that stays in registers: rows x vectors. With 32 registers, 24 sums, 4 vectors of b and
// one element of a; with 16, 12 + 2 + 1.
constexpr int block_rows = 6;
constexpr int block_vectors = vec_width == 16 ? 4 : 2;

/// One block: c [rows, vectors] from k products.
template <int rows, int vectors, Left left>
void block_product(float* c, std::int64_t ldc, const float* a, std::int64_t lda, const float* b,
                   std::int64_t ldb, std::int64_t k, bool accumulate) {
  Vec sums[rows][vectors];
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < vectors; ++j) sums[i][j] = accumulate ? load(c + i * ldc + j * vec_width) : Vec{};
  }
  for (std::int64_t l = 0; l < k; ++l) {
    Vec right[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) right[j] = load(b + l * ldb + j * vec_width);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const float element = left == Left::rows ? a[i * lda + l] : a[l * lda + i];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sums[i][j] += element * right[j];
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < vectors; ++j) store(c + i * ldc + j * vec_width, sums[i][j]);
  }
}

using BlockProduct = void (*)(float*, std::int64_t, const float*, std::int64_t, const float*, std::int64_t,
                              std::int64_t, bool);

/// block_product for 1 .. block_rows rows.
template <int vectors, Left left, int... i>
constexpr std::array<BlockProduct, block_rows> by_rows(std::integer_sequence<int, i...>) {
  return {&block_product<i + 1, vectors, left>...};
}

/// A strip of c, `vectors` wide: its part of b stays in the first-level cache while the rows go by.
template <int vectors, Left left>
void strip_product(float* c, std::int64_t ldc, const float* a, std::int64_t lda, const float* b,
                   std::int64_t ldb, std::int64_t m, std::int64_t k, bool accumulate) {
  static constexpr auto products = by_rows<vectors, left>(std::make_integer_sequence<int, block_rows>());
  for (std::int64_t i = 0; i < m; i += block_rows) {
    const auto rows = static_cast<std::size_t>(std::min<std::int64_t>(block_rows, m - i));
    products[rows - 1](c + i * ldc, ldc, left == Left::rows ? a + i * lda : a + i, lda, b, ldb, k,
                       accumulate);
  }
}

template <Left left>
void product(float* c, std::int64_t ldc, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
             std::int64_t m, std::int64_t n, std::int64_t k, bool accumulate) {
  std::int64_t j = 0;
  const auto strips = [&]<int vectors>() {
    for (; j + vectors * vec_width <= n; j += vectors * vec_width) {
      strip_product<vectors, left>(c + j, ldc, a, lda, b + j, ldb, m, k, accumulate);
    }
  };
  if constexpr (block_vectors == 4) strips.template operator()<4>();
  strips.template operator()<2>();
  strips.template operator()<1>();
}

}  // namespace

void tile_gemm(float* c, std::int64_t ldc, const float* a, std::int64_t lda, Left left, const float* b,
               std::int64_t ldb, std::int64_t m, std::int64_t n, std::int64_t k, bool accumulate) {
  if (left == Left::rows) {
    product<Left::rows>(c, ldc, a, lda, b, ldb, m, n, k, accumulate);
  } else {
    product<Left::columns>(c, ldc, a, lda, b, ldb, m, n, k, accumulate);
  }
}

}  // namespace ratplus::cpu
