#include <cmath>
#include <numeric>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;
using reference::HeadShape;

namespace {

constexpr std::int64_t none = Pattern::no_dilation;

/// How the tensors of a call lie in memory.
enum class Layout { contiguous, strided };

void check_attention(const Backend& backend, const HeadShape& s, const std::vector<Pattern>& patterns,
                     Layout layout = Layout::contiguous) {
  CAPTURE(s.b);
  CAPTURE(s.t);
  CAPTURE(s.h);
  CAPTURE(s.p);
  INFO(describe(patterns));
  Bench bench(backend, {s.b, s.t, s.h, s.p});
  const DType c = bench.compute();
  const Shape shape{s.b, s.t, s.h, s.p};
  const auto input = [&](std::uint32_t stream) {
    const Values x = normal_values(s.count(), stream);
    return layout == Layout::strided ? bench.strided(c, shape, x) : bench.tensor(c, shape, x);
  };
  const auto output = [&] {
    return layout == Layout::strided ? bench.strided_poisoned(c, shape) : bench.poisoned(c, shape);
  };
  const Tensor q = input(1), k = input(2), v = input(3), out = output();
  const Tensor lse = bench.poisoned(DType::f32, {s.b, s.h, s.t});
  bench->attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = patterns});
  const Values q0 = bench.read(q), k0 = bench.read(k), v0 = bench.read(v);
  const reference::Attention expected = reference::attention(q0, k0, v0, s, patterns);
  CHECK(relative_error(bench.read(out), expected.out) < bench.tolerance());
  CHECK(relative_error(bench.read(lse), expected.lse) < bench.tolerance());

  const Tensor dout = input(4), dq = output(), dk = output(), dv = output();
  bench->attention_backward({.dq = dq,
                             .dk = dk,
                             .dv = dv,
                             .dout = dout,
                             .out = out,
                             .lse = lse,
                             .q = q,
                             .k = k,
                             .v = v,
                             .patterns = patterns});
  const reference::AttentionGradient gradient =
      reference::attention_gradient(q0, k0, v0, bench.read(dout), s, patterns);
  // A query with a single key has no gradient in q and k: there the size of dv is the measure.
  const double size = 0.1 * std::sqrt(dot(gradient.dv, gradient.dv));
  CHECK(relative_error(bench.read(dq), gradient.dq, size) < bench.tolerance());
  CHECK(relative_error(bench.read(dk), gradient.dk, size) < bench.tolerance());
  CHECK(relative_error(bench.read(dv), gradient.dv) < bench.tolerance());
}

}  // namespace

TEST_CASE("the reference of attention's gradient equals central differences") {
  const std::vector<Pattern> shared{Pattern{3, 2, 1}}, by_head{Pattern{}, Pattern{5, 0, 0}};
  for (const auto& patterns : {shared, by_head}) {
    const HeadShape s{2, 11, 2, 6};
    const Values q = normal_values(s.count(), 1), k = normal_values(s.count(), 2),
                 v = normal_values(s.count(), 3);
    const Values dout = normal_values(s.count(), 4);
    const reference::AttentionGradient gradient = reference::attention_gradient(q, k, v, dout, s, patterns);
    const auto loss = [&](const Values& at_q, const Values& at_k, const Values& at_v) {
      return dot(dout, reference::attention(at_q, at_k, at_v, s, patterns).out);
    };
    CHECK(gradient_error(
              gradient.dq, q, [&](const Values& x) { return loss(x, k, v); }, 5) < 1e-6);
    CHECK(gradient_error(
              gradient.dk, k, [&](const Values& x) { return loss(q, x, v); }, 6) < 1e-6);
    CHECK(gradient_error(
              gradient.dv, v, [&](const Values& x) { return loss(q, k, x); }, 7) < 1e-6);
  }
}

TEST_CASE("attention of short sequences") {
  FOR_EACH_BACKEND(backend) {
    for (const Pattern& pattern :
         {Pattern{}, Pattern{4, 0, 0}, Pattern{3, 2, 1}, Pattern{none, 3, 0}, Pattern{none, 0, 2},
          Pattern{none, 0, 0}, Pattern{7, 20, 2}, Pattern{5, 0, 40}, Pattern{50, 0, 0}, Pattern{2, 18, 3},
          Pattern{1, 4, 2}}) {
      check_attention(backend, {1, 21, 2, 8}, {pattern});
      check_attention(backend, {2, 1, 1, 8}, {pattern});
    }
  }
}

TEST_CASE("attention over several tiles and blocks") {
  FOR_EACH_BACKEND(backend) {
    for (const Pattern& pattern :
         {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 32, 4}, Pattern{16, 256, 4}, Pattern{none, 64, 0},
          Pattern{none, 100, 3}, Pattern{none, 0, 5}, Pattern{none, 0, 400}, Pattern{3, 500, 0},
          Pattern{7, 16, 0}, Pattern{7, 17, 70}, Pattern{2, 0, 0}, Pattern{400, 5, 1}}) {
      check_attention(backend, {1, 301, 1, 8}, {pattern});
    }
  }
}

TEST_CASE("attention at the head sizes of models, strided") {
  FOR_EACH_BACKEND(backend) {
    for (const Pattern& pattern : {Pattern{}, Pattern{16, 32, 4}, Pattern{64, 0, 0}}) {
      check_attention(backend, {1, 131, 2, 64}, {pattern}, Layout::strided);
      check_attention(backend, {2, 128, 1, 128}, {pattern}, Layout::strided);
      check_attention(backend, {1, 70, 1, 20}, {pattern}, Layout::strided);
    }
  }
}

TEST_CASE("attention of longer sequences at a model's head size") {
  FOR_EACH_BACKEND(backend) {
    for (const Pattern& pattern : {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 0, 4}, Pattern{16, 256, 4}}) {
      check_attention(backend, {1, 777, 2, 128}, {pattern});
      check_attention(backend, {2, 777, 1, 64}, {pattern});
    }
  }
}

TEST_CASE("attention with heads that no kernel by tiles takes") {
  FOR_EACH_BACKEND(backend) {
    for (const Pattern& pattern : {Pattern{}, Pattern{16, 0, 4}, Pattern{5, 20, 3}}) {
      check_attention(backend, {1, 90, 2, 18}, {pattern});
      check_attention(backend, {2, 70, 1, 132}, {pattern});
    }
  }
}

TEST_CASE("attention keeps the weight of an early key over many tiles") {
  // Heads whose first key outweighs the others by little and by much: its weight is carried along to the last of the keys.
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t p : {64, 80, 128}) {
      const std::int64_t t = 16400, heads = 6;
      CAPTURE(p);
      Bench bench(backend, {1, t, heads, p});
      const DType c = bench.compute();
      Values keys = normal_values(t * heads * p, 1);
      const Values query = normal_values(heads * p, 2);
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto at = [&](std::int64_t i) { return static_cast<std::size_t>(h * p + i); };
        double square = 0;
        for (std::int64_t i = 0; i < p; ++i) square += query[at(i)] * query[at(i)];
        const double score = 8.3 + 0.7 * static_cast<double>(h);
        for (std::int64_t i = 0; i < p; ++i)
          keys[at(i)] = query[at(i)] / square * score * std::sqrt(static_cast<double>(p));
      }
      const Tensor q = bench.tensor(c, {1, 1, heads, p}, query), k = bench.tensor(c, {1, t, heads, p}, keys),
                   v = bench.tensor(c, {1, t, heads, p}, normal_values(t * heads * p, 3)),
                   out = bench.poisoned(c, {1, 1, heads, p}), lse = bench.poisoned(DType::f32, {1, heads, 1});
      const std::vector<Pattern> dense{Pattern{}};
      bench->attention_forward(
          {.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = dense, .first_query = t - 1});
      const Values q0 = bench.read(q), k0 = bench.read(k), v0 = bench.read(v), sums = bench.read(lse);
      Values expected(q0.size());
      for (std::int64_t h = 0; h < heads; ++h) {
        double sum = 0;
        Values values(static_cast<std::size_t>(p));
        for (std::int64_t s = 0; s < t; ++s) {
          const double* row = k0.data() + (s * heads + h) * p;
          const double weight = std::exp(std::inner_product(row, row + p, q0.data() + h * p, 0.0) /
                                         std::sqrt(static_cast<double>(p)));
          sum += weight;
          for (std::int64_t i = 0; i < p; ++i)
            values[static_cast<std::size_t>(i)] +=
                weight * v0[static_cast<std::size_t>((s * heads + h) * p + i)];
        }
        for (std::int64_t i = 0; i < p; ++i)
          expected[static_cast<std::size_t>(h * p + i)] = values[static_cast<std::size_t>(i)] / sum;
        CAPTURE(h);
        CHECK(std::abs(sums[static_cast<std::size_t>(h)] - std::log(sum)) < (c == DType::f32 ? 1e-5 : 1e-3));
      }
      CHECK(relative_error(bench.read(out), expected) < bench.tolerance());
    }
  }
}

TEST_CASE("attention with a pattern a head") {
  FOR_EACH_BACKEND(backend) {
    check_attention(backend, {2, 150, 4, 8},
                    {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 32, 4}, Pattern{none, 20, 1}});
    check_attention(backend, {1, 90, 3, 16}, {Pattern{none, 0, 4}, Pattern{}, Pattern{8, 4, 0}},
                    Layout::strided);
  }
}

TEST_CASE("attention stands large scores") {
  FOR_EACH_BACKEND(backend) {
    const HeadShape s{1, 200, 1, 16};
    Bench bench(backend, {s.b, s.t, s.h, s.p});
    const Shape shape{s.b, s.t, s.h, s.p};
    const Tensor q = bench.tensor(bench.compute(), shape, normal_values(s.count(), 1, 10));
    const Tensor k = bench.tensor(bench.compute(), shape, normal_values(s.count(), 2, 10));
    const Tensor v = bench.tensor(bench.compute(), shape, normal_values(s.count(), 3));
    const Tensor out = bench.poisoned(bench.compute(), shape),
                 lse = bench.poisoned(DType::f32, {s.b, s.h, s.t});
    const std::vector<Pattern> patterns{Pattern{4, 30, 0}};
    bench->attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = patterns});
    const reference::Attention expected =
        reference::attention(bench.read(q), bench.read(k), bench.read(v), s, patterns);
    // Scores of some hundred carry an absolute error of some 1e-5, which is a relative one of the weights.
    CHECK(relative_error(bench.read(out), expected.out) < 20 * bench.tolerance());
    CHECK(relative_error(bench.read(lse), expected.lse) < bench.tolerance());
  }
}
