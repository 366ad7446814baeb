#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

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
    for (const auto& size : {std::array<std::int64_t, 3>{1, 32, 64},
                             {7, 80, 256},
                             {130, 97, 304},
                             {13, 33, 16},
                             {300, 64, 520},
                             {300, 7688, 72},
                             {300, 17000, 136},
                             {70, 3848, 200},
                             {70, 3848, 1096},  // a wide product of more steps of k than its tile has stages
                             {300, 64, 4096},
                             {130, 72, 8192}}) {
      const auto m = size[0], n = size[1], k = size[2];
      CAPTURE(m);
      CAPTURE(n);
      CAPTURE(k);
      Bench bench(backend);
      const DType c = bench.compute();
      if (bench->device().kind == DeviceKind::cpu && (n > 16384 || (n > 3840 && k > 1024)))
        continue;  // more tiles than processors, and stages: of GPUs
      // A GPU's products read rows of whole 16 bytes.
      if (bench->device().kind == DeviceKind::cuda && (n % 8 != 0 || k % 8 != 0)) continue;
      const Tensor x = bench.tensor(c, {m, k}, normal_values(m * k, 1)),
                   w = bench.tensor(c, {n, k}, normal_values(n * k, 2));
      const Values x0 = bench.read(x), w0 = bench.read(w);
      bench->pack_weight(w);
      const Values sums = product(x0, w0, m, n, k);
      for (const auto& entry : {std::pair{DType::f32, false}, std::pair{c, false}, std::pair{c, true},
                                std::pair{DType::f32, true}}) {
        const auto& type = entry.first;
        const auto& gelu = entry.second;
        CAPTURE(gelu);
        const Tensor y = bench.poisoned(type, {m, n});
        bench->row_product(y, x, w, gelu);
        const Values together = bench.read(y);
        Values expected = sums;
        if (gelu) {
          for (double& h : expected) h *= std::erfc(-h / std::sqrt(2.0)) / 2;
        }
        CHECK(relative_error(together, expected) < bench.tolerance());
        // Numbers of rows on both sides of where a GPU takes another tile.
        for (const std::int64_t rows : {1, 2, 8, 9, 32, 33, 64, 65, 128, 256}) {
          for (const std::int64_t begin : {std::int64_t{0}, m - rows}) {
            if (rows > m) continue;
            CAPTURE(rows);
            const Tensor some = bench.poisoned(type, {rows, n});
            bench->row_product(some, x.slice(0, begin, begin + rows), w, gelu);
            CHECK(bench.read(some) ==
                  Values(together.begin() + begin * n, together.begin() + (begin + rows) * n));
          }
        }
      }
    }
  }
}

TEST_CASE(
    "row_product, embedding_forward: on the CPU weights in bfloat16 give the bits of the same values in "
    "float32") {
  for (const int threads : {1, 3}) {
    for (const auto& size : {std::array<std::int64_t, 3>{1, 64, 64},
                             {6, 80, 256},
                             {7, 97, 304},
                             {16, 33, 257},
                             {100, 64, 520},
                             {200, 1, 300}}) {
      const auto m = size[0], n = size[1], k = size[2];
      CAPTURE(m);
      CAPTURE(n);
      CAPTURE(k);
      Bench bench({"cpu", [&] { return make_cpu_ops(threads); }, 0});
      const Tensor x = bench.tensor(DType::f32, {m, k}, normal_values(m * k, 1)),
                   w16 = bench.tensor(DType::bf16, {n, k}, normal_values(n * k, 2)),
                   w32 = bench.tensor(DType::f32, {n, k}, bench.read(w16));
      const auto tokens = bench.labels(random_ids(m, n, 3));
      const Tensor rows16 = bench.poisoned(DType::f32, {m, k}), rows32 = bench.poisoned(DType::f32, {m, k});
      bench->embedding_forward(rows16, tokens, w16);
      bench->embedding_forward(rows32, tokens, w32);
      CHECK(bench.read(rows16) == bench.read(rows32));
      for (const auto& w : {w16, w32}) bench->pack_weight(w);
      for (const bool gelu : {false, true}) {
        const Tensor y16 = bench.poisoned(DType::f32, {m, n}), y32 = bench.poisoned(DType::f32, {m, n});
        bench->row_product(y16, x, w16, gelu);
        bench->row_product(y32, x, w32, gelu);
        CHECK(bench.read(y16) == bench.read(y32));
      }
    }
  }
}

TEST_CASE("row_product: a norm before it and a residual after it, with the bits of calls of their own") {
  FOR_EACH_BACKEND(backend) {
    for (const auto& size : {std::array<std::int64_t, 3>{1, 80, 256}, {3, 7688, 512}, {8, 256, 2048}}) {
      const auto m = size[0], n = size[1], k = size[2];
      CAPTURE(m);
      CAPTURE(k);
      Bench bench(backend);
      if (!bench->fuses_norm(m, k)) continue;
      const DType c = bench.compute();
      const Tensor x = bench.tensor(DType::f32, {m, k}, normal_values(m * k, 1)),
                   w = bench.tensor(c, {n, k}, normal_values(n * k, 2)),
                   weight = bench.tensor(c, {k}, normal_values(k, 3)),
                   stream = bench.tensor(DType::f32, {m, n}, normal_values(m * n, 4));
      bench->pack_weight(w);
      const Tensor u = bench.poisoned(c, {m, k}), y = bench.poisoned(c, {m, n}),
                   fused = bench.poisoned(c, {m, n});
      constexpr double eps = 1e-5;
      bench->residual_rms_norm_forward(
          {.u = u, .rstd = bench.poisoned(DType::f32, {m}), .x = x, .weight = weight, .eps = eps});
      for (const bool gelu : {false, true}) {
        bench->row_product(y, u, w, gelu);
        bench->row_product({.y = fused, .x = x, .w = w, .gelu = gelu, .norm_weight = weight, .eps = eps});
        CHECK(bench.read(fused) == bench.read(y));
      }
      bench->row_product(y, u, w);
      const Values before = bench.read(stream), added = bench.read(y);
      bench->row_product({.y = fused, .x = u, .w = w, .residual = stream});
      const Values after = bench.read(stream);
      bool equal = true;
      for (std::size_t i = 0; i < after.size(); ++i)
        equal = equal &&
                after[i] == static_cast<double>(static_cast<float>(before[i]) + static_cast<float>(added[i]));
      CHECK(equal);
    }
  }
}

TEST_CASE("product_chain: with the bits of its products one by one") {
  FOR_EACH_BACKEND(backend) {
    // Width, projections, hidden: fewer and more rows of weights than processors take in a round.
    for (const auto& size : {std::array<std::int64_t, 3>{256, 1280, 1024},
                             {512, 2568, 2048},
                             {768, 3840, 3072},
                             {1280, 6400, 5120},
                             {2048, 10240, 8192}}) {
      for (const std::int64_t m : {1, 2}) {  // of one row alone a GPU has a kernel
        const auto d = size[0], n = size[1], h = size[2];
        CAPTURE(d);
        CAPTURE(m);
        Bench bench(backend);
        if (!bench->fuses_norm(m, d)) continue;
        if (d > 512 && m > 1) continue;
        const DType c = bench.compute();
        const auto weight = [&](std::int64_t out, std::int64_t in, unsigned seed) {
          const Tensor w = bench.tensor(c, {out, in}, normal_values(out * in, seed));
          bench->pack_weight(w);
          return w;
        };
        const Tensor out_proj = weight(d, d, 1), fc1 = weight(h, d, 2), fc2 = weight(d, h, 3),
                     in_proj = weight(n, d, 4), norm1 = bench.tensor(c, {d}, normal_values(d, 5)),
                     norm2 = bench.tensor(c, {d}, normal_values(d, 6)),
                     z = bench.tensor(c, {m, d}, normal_values(m * d, 7));
        Values begin = normal_values(m * d, 8);
        constexpr double eps = 1e-6;
        const auto results = [&](bool together, int times, std::size_t count, std::ptrdiff_t first = 0) {
          const Tensor stream = bench.tensor(DType::f32, {m, d}, begin), delta = bench.poisoned(c, {m, d}),
                       hidden = bench.poisoned(c, {m, h}), projected = bench.poisoned(c, {m, n});
          operation::ProductChain chain{
              {{.y = delta, .x = z, .w = out_proj, .residual = stream},
               {.y = hidden, .x = stream, .w = fc1, .gelu = true, .norm_weight = norm1, .eps = eps},
               {.y = delta, .x = hidden, .w = fc2, .residual = stream},
               {.y = projected, .x = stream, .w = in_proj, .norm_weight = norm2, .eps = eps}}};
          chain.products.resize(count, chain.products.back());
          chain.products.erase(chain.products.begin(), chain.products.begin() + first);
          for (int i = 0; i < times; ++i) {
            if (together) {
              bench->product_chain(chain);
            } else {
              for (const auto& product : chain.products) bench->row_product(product);
            }
          }
          std::vector<Values> all{bench.read(stream)};
          if (count > 1) all.push_back(bench.read(hidden));
          if (count > 3) all.push_back(bench.read(projected));
          return all;
        };
        for (const std::size_t count : {std::size_t{4}, std::size_t{3}, std::size_t{2}, std::size_t{1}})
          CHECK(results(true, 1, count) == results(false, 1, count));
        CHECK(results(true, 1, 4, 1) == results(false, 1, 4, 1));  // a norm first
        // One after the other, in the same memory.
        CHECK(results(true, 40, 4) == results(false, 40, 4));
        if (d > 512) continue;
        // A row of elements that are no numbers makes no block wait for ever.
        begin[3] = std::bit_cast<float>(std::uint32_t{0xffffffff});
        const auto together = results(true, 2, 4), alone = results(false, 2, 4);
        for (std::size_t i = 0; i < alone.size(); ++i) {
          CHECK(std::ranges::equal(together[i], alone[i], [](double x, double y) {
            return x == y || (std::isnan(x) && std::isnan(y));
          }));
          CHECK(std::ranges::any_of(alone[i], [](double x) { return std::isnan(x); }));
        }
      }
    }
  }
}
