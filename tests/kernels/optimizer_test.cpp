#include <cmath>
#include <cstdint>
#include <initializer_list>

#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("sums in float64") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Tensor total = bench.poisoned(DType::f64, {1});
    const auto value_of = [&](auto add, const Tensor& x) {
      bench->fill(total, 0);
      ((*bench).*add)(total, x);
      return bench.read(total)[0];
    };
    for (const std::int64_t n : {1, 17, 255, 256, 257, 100003}) {
      CAPTURE(n);
      const Values x = normal_values(n, 1);
      const Tensor tensor = bench.tensor(DType::f32, {n}, x);
      double sum = 0, squares = 0;
      for (const double value : x) sum += value, squares += value * value;
      CHECK(value_of(&Ops::add_sum, tensor) == doctest::Approx(sum).epsilon(1e-12));
      CHECK(value_of(&Ops::add_sum_of_squares, tensor) == doctest::Approx(squares).epsilon(1e-12));
      bench->add_sum(total, tensor);  // adds to what is there
      CHECK(bench.read(total)[0] == doctest::Approx(squares + sum).epsilon(1e-12));
    }
    // Float32 sums would stop growing at 2^24.
    const Tensor ones = bench.poisoned(DType::f32, {(std::int64_t{1} << 24) + 5});
    bench->fill(ones, 1);
    CHECK(value_of(&Ops::add_sum, ones) == (1 << 24) + 5);
  }
}

TEST_CASE("digests tell every bit and every place apart, in whatever order they are added") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const auto digest_of = [&](std::initializer_list<Tensor> tensors) {
      const Tensor digest = bench.poisoned(DType::i32, {2});
      bench->fill(digest, 0);
      for (const Tensor& x : tensors) bench->add_digest(digest, x);
      std::uint64_t bits = 0;
      bench->download(&bits, digest);
      return bits;
    };
    // Mixes of SplitMix64 for (index 0, 1) and (index 1, bits of 1.0f), added by hand.
    const Tensor known = bench.tensor(DType::f32, {2}, {0, 1});
    const auto mix = [](std::uint64_t z) {
      z += 0x9e3779b97f4a7c15U;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
      return z ^ (z >> 31);
    };
    CHECK(digest_of({known}) == mix(0) + mix(std::uint64_t{1} << 32 | 0x3f800000U));
    for (const DType type : {DType::f32, DType::bf16}) {
      for (const std::int64_t n : {1, 31, 257, 300007}) {
        CAPTURE(to_string(type));
        CAPTURE(n);
        const Tensor x = bench.tensor(type, {n}, normal_values(n, 1));
        const Tensor y = bench.tensor(type, {n}, normal_values(n, 2));
        const auto digest = digest_of({x});
        CHECK(digest_of({x}) == digest);
        CHECK(digest_of({x, y}) == digest_of({y, x}));
        CHECK(digest_of({x, y}) == digest + digest_of({y}));
        for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
          const Tensor element = x.slice(0, at, at + 1);
          std::uint32_t bits = 0;
          bench->download(&bits, element);
          for (int bit = 0; bit < 8 * size_of(type); ++bit) {
            const std::uint32_t flipped = bits ^ 1U << bit;
            bench->upload(element, &flipped);
            REQUIRE(digest_of({x}) != digest);
          }
          bench->upload(element, &bits);
        }
        CHECK(digest_of({x}) == digest);
        if (n > 1) CHECK(digest_of({x.slice(0, 1, n)}) != digest);
      }
    }
    // Places count: the same values in another order are another tensor.
    CHECK(digest_of({bench.tensor(DType::f32, {2}, {1, 2})}) !=
          digest_of({bench.tensor(DType::f32, {2}, {2, 1})}));
  }
}

TEST_CASE("AdamW follows the published update over several steps") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    constexpr std::int64_t n = 9001;
    AdamW update;
    update.lr = 3e-3;
    update.gradient_scale = 0.5;
    Values p = normal_values(n, 1), m(n), v(n);
    const Tensor master = bench.tensor(DType::f32, {n}, p), m32 = bench.tensor(DType::f32, {n}, m);
    const Tensor v32 = bench.tensor(DType::f32, {n}, v);
    const Tensor half = bench.poisoned(DType::bf16, {n}), same = bench.poisoned(DType::f32, {n});
    const Tensor none;
    const Tensor weights[] = {half, same, none, master};
    for (std::int64_t step = 1; step <= 4; ++step) {
      update.step = step;
      const Values g = normal_values(n, static_cast<std::uint32_t>(10 + step));
      bench->adamw(master, m32, v32, weights[step - 1], bench.tensor(DType::f32, {n}, g), update);
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double gradient = g[i] * update.gradient_scale;
        m[i] = update.beta1 * m[i] + (1 - update.beta1) * gradient;
        v[i] = update.beta2 * v[i] + (1 - update.beta2) * gradient * gradient;
        const double mean = m[i] / (1 - std::pow(update.beta1, static_cast<double>(step)));
        const double square = v[i] / (1 - std::pow(update.beta2, static_cast<double>(step)));
        p[i] -= update.lr * (mean / (std::sqrt(square) + update.eps) + update.weight_decay * p[i]);
      }
      if (step == 1) CHECK(relative_error(bench.read(half), p) < 3e-3);
      if (step == 2) CHECK(bench.read(same) == bench.read(master));
    }
    CHECK(relative_error(bench.read(master), p) < 1e-6);
    CHECK(relative_error(bench.read(m32), m) < 1e-6);
    CHECK(relative_error(bench.read(v32), v) < 1e-6);
  }
}
