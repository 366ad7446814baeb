#include "kernels/cpu/tile_gemm.h"

#include <algorithm>

#include "kernels/cpu/simd.h"
#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("tile products agree with the plain product at every remainder") {
  for (const cpu::Left left : {cpu::Left::rows, cpu::Left::columns}) {
    for (const std::int64_t m : {1, 5, 6, 7, 23, 64}) {
      for (std::int64_t n = cpu::vec_width; n <= 8 * cpu::vec_width; n += cpu::vec_width) {
        for (const std::int64_t k : {0, 1, 8, 33}) {
          for (const bool accumulate : {false, true}) {
            CAPTURE(m);
            CAPTURE(n);
            CAPTURE(k);
            CAPTURE(accumulate);
            const bool columns = left == cpu::Left::columns;
            const Values a = normal_values(m * k, 1), b = normal_values(k * n, 2),
                         c = normal_values(m * n, 3);
            const std::vector<float> a32(a.begin(), a.end()), b32(b.begin(), b.end());
            std::vector<float> c32(c.begin(), c.end());
            cpu::tile_gemm(c32.data(), n, a32.data(), columns ? m : k, left, b32.data(), n, m, n, k,
                           accumulate);
            Values expected = reference::matmul(a, b, m, n, k, columns, false);
            for (std::size_t i = 0; accumulate && i < expected.size(); ++i) expected[i] += c[i];
            CHECK(relative_error({c32.begin(), c32.end()}, expected) < 1e-6);
            if (columns) continue;
            std::vector<float> beside_fetching(c.begin(), c.end());  // of whatever lies behind b
            cpu::tile_gemm(beside_fetching.data(), n, a32.data(), k, left, b32.data(), n, m, n, k, accumulate,
                           cpu::Fetch::next_rows);
            CHECK(beside_fetching == c32);
          }
        }
      }
    }
  }
}

TEST_CASE("an element of a tile product has the same bits alone and among others") {
  for (const cpu::Left left : {cpu::Left::rows, cpu::Left::columns}) {
    for (const std::int64_t vectors : {1, 2, 3, 4, 7}) {
      for (const std::int64_t k : {5, 33, 256}) {
        CAPTURE(vectors);
        CAPTURE(k);
        const std::int64_t m = 13, n = vectors * cpu::vec_width;
        const bool columns = left == cpu::Left::columns;
        const Values a = normal_values(m * k, 1), b = normal_values(k * n, 2);
        const std::vector<float> a32(a.begin(), a.end()), b32(b.begin(), b.end());
        const std::int64_t lda = columns ? m : k;
        std::vector<float> together(static_cast<std::size_t>(m * n));
        cpu::tile_gemm(together.data(), n, a32.data(), lda, left, b32.data(), n, m, n, k, false);
        for (std::int64_t i = 0; i < m; ++i) {
          std::vector<float> row(static_cast<std::size_t>(n));
          const float* const first = a32.data() + (columns ? i : i * k);
          cpu::tile_gemm(row.data(), n, first, lda, left, b32.data(), n, 1, n, k, false);
          const auto of_row = together.begin() + i * n;
          CHECK(std::equal(row.begin(), row.end(), of_row));
          std::vector<float> vector(static_cast<std::size_t>(cpu::vec_width));
          cpu::tile_gemm(vector.data(), cpu::vec_width, first, lda, left, b32.data() + n - cpu::vec_width, n,
                         1, cpu::vec_width, k, false);
          CHECK(std::equal(vector.begin(), vector.end(), of_row + n - cpu::vec_width));
        }
      }
    }
  }
}
