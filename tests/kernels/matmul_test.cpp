#include <array>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("matmul in every form") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    std::uint32_t stream = 0;
    for (const auto& size :
         {std::array<std::int64_t, 3>{1, 1, 1}, {7, 13, 5}, {64, 96, 33}, {1, 40, 8}, {130, 1, 70}}) {
      const auto m = size[0], n = size[1], k = size[2];
      for (const bool transpose_a : {false, true}) {
        for (const bool transpose_b : {false, true}) {
          for (const bool accumulate : {false, true}) {
            CAPTURE(m);
            CAPTURE(n);
            CAPTURE(k);
            CAPTURE(transpose_a);
            CAPTURE(transpose_b);
            CAPTURE(accumulate);
            const Shape a_shape = transpose_a ? Shape{k, m} : Shape{m, k};
            const Shape b_shape = transpose_b ? Shape{n, k} : Shape{k, n};
            const Tensor a = bench.strided(bench.compute(), a_shape, normal_values(m * k, ++stream));
            const Tensor b = bench.strided(bench.compute(), b_shape, normal_values(k * n, ++stream));
            const Values before = normal_values(m * n, ++stream);
            // Without accumulate, what was in c (NaN) must not matter.
            const Tensor c = accumulate ? bench.strided(DType::f32, {m, n}, before)
                                        : bench.strided_poisoned(DType::f32, {m, n});
            bench->matmul(c, a, b, {transpose_a, transpose_b, accumulate});
            Values expected =
                reference::matmul(bench.read(a), bench.read(b), m, n, k, transpose_a, transpose_b);
            for (std::size_t i = 0; accumulate && i < expected.size(); ++i) expected[i] += before[i];
            CHECK(relative_error(bench.read(c), expected) < bench.tolerance());
          }
        }
      }
    }
  }
}
