#include <cmath>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;
using reference::HeadShape;

namespace {

constexpr double base = 10000;

enum class Repeat { no, yes };

/// With Repeat::yes everything is computed once more, and must have the same bits.
void check_recurrence(const Backend& backend, const HeadShape& s, std::int64_t parts,
                      Repeat repeat = Repeat::no) {
  CAPTURE(s.b);
  CAPTURE(s.t);
  CAPTURE(s.h);
  CAPTURE(s.p);
  CAPTURE(parts);
  Bench bench(backend, {s.b, s.t, s.h, s.p});
  const DType c = bench.compute();
  const Shape wide{s.b, s.t, parts, s.h, s.p}, shape{s.b, s.t, s.h, s.p};
  const Tensor rope = bench.poisoned(DType::f32, {s.t + 3, 2, s.p / 2});  // a longer table serves, too
  bench->rope_table(rope, base);
  const Tensor projection = bench.tensor(c, wide, normal_values(count(wide), 1));
  const Tensor dq = bench.tensor(c, shape, normal_values(s.count(), 2));
  const Tensor dk = bench.strided(c, shape, normal_values(s.count(), 3));
  const Tensor dv = bench.tensor(c, shape, normal_values(s.count(), 4));

  struct Result {
    reference::QKV out;
    Values gradient;
  };
  const auto run = [&] {
    const Tensor q = bench.poisoned(c, shape), k = bench.poisoned(c, shape),
                 v = bench.strided_poisoned(c, shape), dprojection = bench.poisoned(c, wide);
    const auto forward = recurrence_of(projection, q, k, v, rope);
    bench->recurrence_rope_forward(forward);
    bench->recurrence_rope_backward(recurrence_gradient_of(forward, dprojection, dq, dk, dv));
    return Result{{bench.read(q), bench.read(k), bench.read(v)}, bench.read(dprojection)};
  };
  Result result = run();
  if (repeat == Repeat::yes) {
    const Result again = run();
    CHECK(same_bits(again.out.q, result.out.q));
    CHECK(same_bits(again.out.k, result.out.k));
    CHECK(same_bits(again.out.v, result.out.v));
    CHECK(same_bits(again.gradient, result.gradient));
  }

  const Values x = bench.read(projection);
  const reference::QKV expected = reference::recurrence_rope(x, parts, s, base);
  CHECK(relative_error(result.out.q, expected.q) < bench.tolerance());
  CHECK(relative_error(result.out.k, expected.k) < bench.tolerance());
  CHECK(relative_error(result.out.v, expected.v) < bench.tolerance());

  // The part o is left alone: still NaN, and no input of this operation.
  std::int64_t touched = 0;
  const std::int64_t d = s.h * s.p;
  for (std::int64_t row = 0; row < s.b * s.t; ++row) {
    for (std::int64_t i = 0; i < d; ++i) {
      double& value = reference::at(result.gradient, row * parts * d + i);
      touched += !std::isnan(value);
      value = 0;
    }
  }
  CHECK(touched == 0);
  const reference::QKV dout{bench.read(dq), bench.read(dk), bench.read(dv)};
  const Values gradient = reference::recurrence_rope_gradient(dout, x, parts, s, base);
  CHECK(relative_error(result.gradient, gradient) < bench.tolerance());
  for (std::int64_t which = 1; which < parts; ++which) {  // each by itself: a small one does not hide
    CAPTURE(which);
    CHECK(relative_error(reference::part_of(result.gradient, parts, which, s),
                         reference::part_of(gradient, parts, which, s)) < bench.tolerance());
  }
}

}  // namespace

TEST_CASE("the rotary table holds cos and sin to float32") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Tensor table = bench.poisoned(DType::f32, {4096, 2, 4});
    bench->rope_table(table, base);
    const Values values = bench.read(table);
    for (const std::size_t t : {0, 1, 77, 4095}) {
      for (std::size_t i = 0; i < 4; ++i) {
        const double angle = static_cast<double>(t) * std::pow(base, -static_cast<double>(i) / 4);
        CHECK(std::abs(values[t * 8 + i] - std::cos(angle)) < 1e-7);
        CHECK(std::abs(values[t * 8 + 4 + i] - std::sin(angle)) < 1e-7);
      }
    }
  }
}

TEST_CASE("the reference of the recurrence's gradient equals central differences") {
  for (const std::int64_t parts : {5, 4}) {
    const HeadShape s{2, 9, 2, 4};
    const Values x = normal_values(s.count() * parts, 1);
    const reference::QKV dout{normal_values(s.count(), 2), normal_values(s.count(), 3),
                              normal_values(s.count(), 4)};
    const auto loss = [&](const Values& at) {
      const reference::QKV out = reference::recurrence_rope(at, parts, s, base);
      return dot(dout.q, out.q) + dot(dout.k, out.k) + dot(dout.v, out.v);
    };
    const Values gradient = reference::recurrence_rope_gradient(dout, x, parts, s, base);
    CHECK(gradient_error(gradient, x, loss, 5) < 1e-6);
  }
}

TEST_CASE("recurrence and RoPE, forward and backward") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t parts : {5, 4}) {
      check_recurrence(backend, {1, 1, 1, 8}, parts);
      check_recurrence(backend, {2, 5, 1, 8}, parts);
      check_recurrence(backend, {1, 3, 3, 6}, parts);
      check_recurrence(backend, {2, 67, 3, 8}, parts);
      check_recurrence(backend, {3, 33, 2, 64}, parts);
      check_recurrence(backend, {1, 129, 1, 128}, parts);
    }
  }
}

TEST_CASE("recurrence and RoPE over long sequences") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t parts : {5, 4}) {
      check_recurrence(backend, {1, 4097, 3, 64}, parts, Repeat::yes);
      check_recurrence(backend, {2, 1030, 1, 128}, parts, Repeat::yes);
    }
  }
}
