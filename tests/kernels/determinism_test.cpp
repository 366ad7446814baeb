// The same call on the same inputs gives the same bits: from run to run, and for any number of threads.
#include <algorithm>
#include <array>
#include <cmath>

#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

namespace {

constexpr std::int64_t batch = 2, tokens = 300, heads = 3, head_dim = 16, width = heads * head_dim;
constexpr std::int64_t rows = batch * tokens, vocab = 500;

/// Every operation whose result could depend on how its work is cut, chained as a training step chains them;
/// all outputs, one after the other.
Values all_operations(const Backend& backend) {
  Bench bench(backend, {batch, tokens, heads, head_dim});
  Values results;
  const auto keep = [&](const Tensor& tensor) {
    const Values values = bench.read(tensor);
    results.insert(results.end(), values.begin(), values.end());
    return tensor;
  };
  const DType c = bench.compute();
  const Shape shape{batch, tokens, heads, head_dim};
  const auto random = [&](DType dtype, const Shape& at, std::uint32_t stream) {
    return bench.tensor(dtype, at, normal_values(count(at), stream));
  };
  const auto made = [&](const Shape& at) { return bench.poisoned(c, at); };
  const auto made_f32 = [&](const Shape& at) { return bench.poisoned(DType::f32, at); };

  const Tensor rope = made_f32({tokens, 2, head_dim / 2}), lse = made_f32({batch, heads, tokens});
  bench->rope_table(rope, 10000);
  const Tensor projection = random(c, {batch, tokens, 5, heads, head_dim}, 1), dout = random(c, shape, 2);
  const Tensor q = made(shape), k = made(shape), v = made(shape), out = made(shape);
  const Tensor dq = made(shape), dk = made(shape), dv = made(shape);
  const Tensor dprojection = bench.tensor(c, {batch, tokens, 5, heads, head_dim}, Values(rows * 5 * width));
  const auto recurrence = recurrence_of(projection, q, k, v, rope);
  bench->recurrence_rope_forward(recurrence);
  for (const Pattern& pattern : {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 40, 4}, Pattern{0, 30, 0}}) {
    bench->attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = {&pattern, 1}});
    bench->attention_backward({.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = dout,
                               .out = out,
                               .lse = lse,
                               .q = q,
                               .k = k,
                               .v = v,
                               .patterns = {&pattern, 1}});
    for (const Tensor& tensor : {out, lse, dq, dk, dv}) keep(tensor);
  }
  bench->recurrence_rope_backward(recurrence_gradient_of(recurrence, dprojection, dq, dk, dv));
  keep(dprojection);

  const Tensor x = random(DType::f32, {rows, width}, 3), dy = random(DType::f32, {rows, width}, 9);
  const Tensor delta = random(c, {rows, width}, 4), weight = random(c, {width}, 5);
  const Tensor u = made({rows, width}), rstd = made_f32({rows}), dx = made_f32({rows, width});
  const Tensor dweight = random(DType::f32, {width}, 6);
  bench->residual_rms_norm_forward({.y = x, .u = u, .rstd = rstd, .x = x, .delta = delta, .weight = weight});
  bench->residual_rms_norm_backward(
      {.dx = dx, .dweight = dweight, .du = u, .dy = dy, .y = x, .rstd = rstd, .weight = weight});
  for (const Tensor& tensor : {x, u, rstd, dx, dweight}) keep(tensor);

  const Tensor labels = bench.labels(random_ids(rows, vocab, 0)),
               dtable = random(DType::f32, {vocab, width}, 7), logits = random(c, {rows, vocab}, 8);
  const Tensor losses = made_f32({rows});
  bench->embedding_backward(dtable, dx, labels);
  bench->cross_entropy(losses, logits, labels, 0.01, true);
  for (const Tensor& tensor : {dtable, losses, logits}) keep(tensor);
  const Tensor totals = bench.tensor(DType::f64, {2}, Values(2));
  bench->add_sum(totals.slice(0, 0, 1), dtable.view({vocab * width}));
  bench->add_sum_of_squares(totals.slice(0, 1, 2), dtable.view({vocab * width}));
  keep(totals);
  return results;
}

/// Products [M, N, K] in which a BLAS might cut K among its threads or blocks: weight gradients, which sum over many
/// rows, and products with few outputs for their K; in the forms of a weight's gradient and of a layer's forward
/// pass. All results, one after the other; each product twice in a row must have the same bits at once.
Values products(const Backend& backend) {
  Bench bench(backend);
  const DType type = bench.compute();
  Values results;
  for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{256, 128, 2048},
                                {1024, 256, 96},
                                {40, 24, 4096},
                                {64, 48, 16384},
                                {8, 8, 32768},
                                {1, 16, 8192}}) {
    const Shape c{m, n};
    const Values values_a = normal_values(m * k, 1), values_b = normal_values(n * k, 2);
    const auto twice = [&](DType output, const Shape& a_shape, const Shape& b_shape, MatmulOptions options) {
      const Tensor a = bench.tensor(type, a_shape, values_a), b = bench.tensor(type, b_shape, values_b);
      const Tensor one = bench.poisoned(output, c), two = bench.poisoned(output, c);
      bench->matmul(one, a, b, options);
      bench->matmul(two, a, b, options);
      const Values values = bench.read(one);
      CHECK(same_bits(values, bench.read(two)));
      results.insert(results.end(), values.begin(), values.end());
    };
    twice(DType::f32, {k, m}, {k, n}, {true, false, false});
    twice(type, {m, k}, {n, k}, {false, true, false});
  }
  return results;
}

}  // namespace

TEST_CASE("the same calls give the same bits from run to run") {
  FOR_EACH_BACKEND(backend) {
    const Values one = all_operations(backend);
    CHECK(std::all_of(one.begin(), one.end(), [](double value) { return std::isfinite(value); }));
    for (int run = 0; run < 3; ++run) CHECK(same_bits(one, all_operations(backend)));
  }
}

TEST_CASE("the CPU backend gives the same bits for any number of threads") {
  const auto with_threads = [](int threads) {
    return all_operations({"cpu", [threads] { return make_cpu_ops(threads); }, 0});
  };
  const Values one = with_threads(1);
  for (const int threads : {2, 3, 7}) {
    CAPTURE(threads);
    CHECK(same_bits(one, with_threads(threads)));
  }
}

TEST_CASE("products give the same bits from run to run") {
  FOR_EACH_BACKEND(backend) {
    const Values one = products(backend);
    CHECK(std::all_of(one.begin(), one.end(), [](double value) { return std::isfinite(value); }));
    for (int run = 0; run < 2; ++run) CHECK(same_bits(one, products(backend)));
  }
}

TEST_CASE("products with other numbers of threads differ by rounding alone") {
  const auto with_threads = [](int threads) {
    return products({"cpu", [threads] { return make_cpu_ops(threads); }, 0});
  };
  const Values one = with_threads(1), two = with_threads(2);
  MESSAGE("products with 1 and 2 threads have the same bits: " << same_bits(one, two));
  CHECK(relative_error(one, two) < 1e-6);
}
