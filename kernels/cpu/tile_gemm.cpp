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

/// One block: c [rows, vectors] from k products. If `fetching`, vector `fetched` of each row that lies k rows further down in b
/// is fetched.
template <int rows, int vectors, Left left, bool fetching>
void block_product(float* c, std::int64_t ldc, const float* a, std::int64_t lda, const float* b,
                   std::int64_t ldb, std::int64_t k, bool accumulate, int fetched) {
  const float* const next = b + k * ldb + fetched * vec_width;
  Vec sums[rows][vectors];
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < vectors; ++j) sums[i][j] = accumulate ? load(c + i * ldc + j * vec_width) : Vec{};
  }
  for (std::int64_t l = 0; l < k; ++l) {
    Vec right[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) right[j] = load(b + l * ldb + j * vec_width);
    if constexpr (fetching) __builtin_prefetch(next + l * ldb, 0, 2);
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
                              std::int64_t, bool, int);

/// block_product for 1 .. block_rows rows.
template <int vectors, Left left, bool fetching, int... i>
constexpr std::array<BlockProduct, block_rows> by_rows(std::integer_sequence<int, i...>) {
  return {&block_product<i + 1, vectors, left, fetching>...};
}

/// A strip of c, `vectors` wide: its part of b stays in the first-level cache while the rows go by, and of the next part one
/// vector of each row is fetched beside a block. Of a single block of rows the processor itself runs ahead in b.
template <int vectors, Left left, Fetch fetch>
void strip_product(float* c, std::int64_t ldc, const float* a, std::int64_t lda, const float* b,
                   std::int64_t ldb, std::int64_t m, std::int64_t k, bool accumulate) {
  constexpr auto rows_of = std::make_integer_sequence<int, block_rows>();
  static constexpr auto products = by_rows<vectors, left, false>(rows_of);
  const auto block = [&](const auto& with, std::int64_t i, int fetched) {
    const auto rows = static_cast<std::size_t>(std::min<std::int64_t>(block_rows, m - i));
    with[rows - 1](c + i * ldc, ldc, left == Left::rows ? a + i * lda : a + i, lda, b, ldb, k, accumulate,
                   fetched);
  };
  std::int64_t i = 0;
  if constexpr (fetch == Fetch::next_rows) {
    static constexpr auto fetching = by_rows<vectors, left, true>(rows_of);
    for (int j = 0; m > block_rows && j < vectors && i < m; ++j, i += block_rows) block(fetching, i, j);
  }
  for (; i < m; i += block_rows) block(products, i, 0);
}

template <Left left, Fetch fetch>
void product(float* c, std::int64_t ldc, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
             std::int64_t m, std::int64_t n, std::int64_t k, bool accumulate) {
  std::int64_t j = 0;
  const auto strips = [&]<int vectors>() {
    for (; j + vectors * vec_width <= n; j += vectors * vec_width) {
      strip_product<vectors, left, fetch>(c + j, ldc, a, lda, b + j, ldb, m, k, accumulate);
    }
  };
  if constexpr (block_vectors == 4) strips.template operator()<4>();
  strips.template operator()<2>();
  strips.template operator()<1>();
}

}  // namespace

void tile_gemm(float* c, std::int64_t ldc, const float* a, std::int64_t lda, Left left, const float* b,
               std::int64_t ldb, std::int64_t m, std::int64_t n, std::int64_t k, bool accumulate,
               Fetch fetch) {
  if (k == 0) {  // sums of nothing, whose operands may be null
    for (std::int64_t i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * ldc, n, 0.0F);
    return;
  }
  if (fetch == Fetch::next_rows) {
    product<Left::rows, Fetch::next_rows>(c, ldc, a, lda, b, ldb, m, n, k, accumulate);
  } else if (left == Left::rows) {
    product<Left::rows, Fetch::nothing>(c, ldc, a, lda, b, ldb, m, n, k, accumulate);
  } else {
    product<Left::columns, Fetch::nothing>(c, ldc, a, lda, b, ldb, m, n, k, accumulate);
  }
}

}  // namespace ratplus::cpu
