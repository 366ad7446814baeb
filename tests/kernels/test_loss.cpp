#include <cmath>

#include "kernels/random.h"
#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("cross-entropy, its gradient, and positions left out") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t vocab : {1, 7, 101, 2777}) {
      CAPTURE(vocab);
      constexpr std::int64_t rows = 19;
      constexpr double scale = 0.125;
      Bench bench(backend);
      std::vector<std::int32_t> labels(rows);
      for (std::size_t i = 0; i < labels.size(); ++i) {
        labels[i] = static_cast<std::int32_t>(
            random_below(static_cast<std::uint64_t>(vocab), 1, Purpose::test, 0, i));
      }
      labels[3] = -100, labels[18] = -1;
      const Tensor ids = bench.labels(labels), losses = bench.poisoned(DType::f32, {rows});
      const Tensor logits = bench.strided(bench.compute(), {rows, vocab}, normal_values(rows * vocab, 1, 3));
      const Values x = bench.read(logits);
      const Values expected = reference::cross_entropy(x, labels);
      bench->cross_entropy(losses, logits, ids, scale, false);
      CHECK(relative_error(bench.read(losses), expected) < bench.tolerance());
      CHECK(bench.read(losses)[3] == 0);
      CHECK(bench.read(logits) == x);  // left alone
      bench->fill(losses, -1);
      bench->cross_entropy(losses, logits, ids, scale, true);
      CHECK(relative_error(bench.read(losses), expected) < bench.tolerance());
      const auto loss = [&](const Values& at) {
        double sum = 0;
        for (const double value : reference::cross_entropy(at, labels)) sum += scale * value;
        return sum;
      };
      // With one word in the vocabulary, every loss and gradient is zero.
      const Values gradient = bench.read(logits);
      if (vocab > 1) CHECK(gradient_error(gradient, x, loss, 2) < bench.tolerance());
      for (std::int64_t j = 0; j < vocab; ++j) {
        CHECK(reference::at(gradient, 3 * vocab + j) == 0);
        CHECK(reference::at(gradient, 18 * vocab + j) == 0);
      }
    }
  }
}

TEST_CASE("cross-entropy stands large logits") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Tensor logits = bench.tensor(DType::f32, {2, 3}, {1e4, -1e4, 9999, -5e4, -5e4, -5e4});
    const Tensor losses = bench.poisoned(DType::f32, {2});
    bench->cross_entropy(losses, logits, bench.labels({0, 1}), 1, true);
    CHECK(relative_error(bench.read(losses), {std::log(1 + std::exp(-1)), std::log(3)}) < 1e-5);
    for (const double value : bench.read(logits)) CHECK(std::isfinite(value));
  }
}
