#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

namespace {

/// x [m, k] w [n, k]^T in float64.
Values product(const Values& x, const Values& w, std::int64_t m, std::int64_t n, std::int64_t k) {
  Values y(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += x[static_cast<std::size_t>(i * k + l)] * w[static_cast<std::size_t>(j * k + l)];
      y[static_cast<std::size_t>(i * n + j)] = sum;
    }
  }
  return y;
}

}  // namespace

TEST_CASE("row_product: the product of packed weights, and each row's bits its own") {
  FOR_EACH_BACKEND(backend) {
    for (const auto& [m, n, k] : {std::tuple<std::int64_t, std::int64_t, std::int64_t>{1, 32, 64},
                                  {7, 80, 256},
                                  {130, 97, 304},
                                  {13, 33, 16},
                                  {300, 64, 520}}) {
      CAPTURE(m);
      CAPTURE(n);
      CAPTURE(k);
      Bench bench(backend);
      const DType c = bench.compute();
      // A GPU's products read rows of whole 16 bytes.
      if (bench->device().kind == DeviceKind::cuda && (n % 8 != 0 || k % 8 != 0)) continue;
      const Tensor x = bench.tensor(c, {m, k}, normal_values(m * k, 1)),
                   w = bench.tensor(c, {n, k}, normal_values(n * k, 2));
      const Values x0 = bench.read(x), w0 = bench.read(w);
      bench->pack_weight(w);
      const Tensor y = bench.poisoned(DType::f32, {m, n});
      bench->row_product(y, x, w);
      const Values together = bench.read(y);
      CHECK(relative_error(together, product(x0, w0, m, n, k)) < bench.tolerance());
      for (const auto& [begin, end] :
           {std::pair<std::int64_t, std::int64_t>{0, 1}, {m - 1, m}, {m / 3, m}, {m / 2, m / 2 + 1}}) {
        const Tensor some = bench.poisoned(DType::f32, {end - begin, n});
        bench->row_product(some, x.slice(0, begin, end), w);
        CHECK(bench.read(some) == Values(together.begin() + begin * n, together.begin() + end * n));
      }
    }
  }
}
