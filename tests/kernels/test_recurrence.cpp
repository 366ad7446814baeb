#include <cmath>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;
using reference::HeadShape;

namespace {

constexpr double base = 10000;

void check_recurrence(const Backend& backend, const HeadShape& s, std::int64_t parts) {
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
  const Tensor q = bench.poisoned(c, shape), k = bench.poisoned(c, shape),
               v = bench.strided_poisoned(c, shape);
  bench->recurrence_rope_forward(q, k, v, projection, rope);
  const Values x = bench.read(projection);
  const reference::QKV expected = reference::recurrence_rope(x, parts, s, base);
  CHECK(relative_error(bench.read(q), expected.q) < bench.tolerance());
  CHECK(relative_error(bench.read(k), expected.k) < bench.tolerance());
  CHECK(relative_error(bench.read(v), expected.v) < bench.tolerance());

  const Tensor dq = bench.tensor(c, shape, normal_values(s.count(), 2));
  const Tensor dk = bench.strided(c, shape, normal_values(s.count(), 3));
  const Tensor dv = bench.tensor(c, shape, normal_values(s.count(), 4));
  const Tensor dprojection = bench.poisoned(c, wide);
  bench->recurrence_rope_backward(dprojection, dq, dk, dv, projection, k, v, rope);
  const Values dq0 = bench.read(dq), dk0 = bench.read(dk), dv0 = bench.read(dv);
  Values gradient = bench.read(dprojection);
  // The part o is left alone: still NaN, and no input of this operation.
  const std::int64_t d = s.h * s.p;
  for (std::int64_t row = 0; row < s.b * s.t; ++row) {
    for (std::int64_t i = 0; i < d; ++i) {
      double& untouched = reference::at(gradient, row * parts * d + i);
      CHECK(std::isnan(untouched));
      untouched = 0;
    }
  }
  const auto loss = [&](const Values& at) {
    const reference::QKV out = reference::recurrence_rope(at, parts, s, base);
    return dot(dq0, out.q) + dot(dk0, out.k) + dot(dv0, out.v);
  };
  CHECK(gradient_error(gradient, x, loss, 5) < bench.tolerance());
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
