#include <array>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

namespace {

constexpr double eps = 1e-6;

void check_norm(const Backend& backend, std::int64_t rows, std::int64_t width, bool with_delta,
                bool with_dy) {
  CAPTURE(rows);
  CAPTURE(width);
  CAPTURE(with_delta);
  CAPTURE(with_dy);
  Bench bench(backend, {1, rows, 1, width});
  const DType c = bench.compute();
  const Shape shape{rows, width};
  const Tensor x = bench.strided(DType::f32, shape, normal_values(rows * width, 1));
  const Tensor delta = with_delta ? bench.strided(c, shape, normal_values(rows * width, 2)) : Tensor();
  const Tensor weight = bench.tensor(c, {width}, normal_values(width, 3));
  const Tensor y = with_delta ? bench.strided_poisoned(DType::f32, shape) : Tensor();
  const Tensor u = bench.strided_poisoned(c, shape), rstd = bench.poisoned(DType::f32, {rows});
  bench->residual_rms_norm_forward(
      {.y = y, .u = u, .rstd = rstd, .x = x, .delta = delta, .weight = weight, .eps = eps});

  const Values x0 = bench.read(x), w0 = bench.read(weight),
               delta0 = with_delta ? bench.read(delta) : Values();
  const reference::RmsNorm expected = reference::rms_norm(x0, delta0, w0, eps);
  CHECK(relative_error(bench.read(u), expected.u) < bench.tolerance());
  CHECK(relative_error(bench.read(rstd), expected.rstd) < 1e-5);
  if (with_delta) CHECK(relative_error(bench.read(y), expected.y) < 1e-6);

  // loss = du . u + dy . y
  const Tensor du = bench.strided(c, shape, normal_values(rows * width, 4));
  const Tensor dy = with_dy ? bench.strided(DType::f32, shape, normal_values(rows * width, 5)) : Tensor();
  const Tensor dx = bench.strided_poisoned(DType::f32, shape);
  const Values before = normal_values(width, 6);
  const Tensor dweight = bench.tensor(DType::f32, {width}, before);
  const Tensor dlayer = with_dy ? bench.strided_poisoned(c, shape) : Tensor();
  bench->residual_rms_norm_backward({.dx = dx,
                                     .dlayer = dlayer,
                                     .dweight = dweight,
                                     .du = du,
                                     .dy = dy,
                                     .y = with_delta ? y : x,
                                     .rstd = rstd,
                                     .weight = weight});
  const Values dy0 = with_dy ? bench.read(dy) : Values(x0.size());
  const reference::RmsNormGradient gradient = reference::rms_norm_gradient(bench.read(du), dy0, expected, w0);
  Values added = bench.read(dweight);
  for (std::size_t i = 0; i < added.size(); ++i) added[i] -= before[i];
  CHECK(relative_error(bench.read(dx), gradient.dx) < bench.tolerance());
  CHECK(relative_error(added, gradient.dweight) < bench.tolerance());
  if (dlayer) CHECK(relative_error(bench.read(dlayer), bench.read(dx)) < bench.tolerance());
}

}  // namespace

TEST_CASE("the reference of RMSNorm's gradient equals central differences") {
  constexpr std::int64_t rows = 6, width = 11;
  const Values x = normal_values(rows * width, 1), delta = normal_values(rows * width, 2),
               weight = normal_values(width, 3);
  const Values du = normal_values(rows * width, 4), dy = normal_values(rows * width, 5);
  const auto loss = [&](const Values& at_x, const Values& at_weight) {
    const reference::RmsNorm norm = reference::rms_norm(at_x, delta, at_weight, eps);
    return dot(du, norm.u) + dot(dy, norm.y);
  };
  const reference::RmsNormGradient gradient =
      reference::rms_norm_gradient(du, dy, reference::rms_norm(x, delta, weight, eps), weight);
  CHECK(gradient_error(
            gradient.dx, x, [&](const Values& v) { return loss(v, weight); }, 7) < 1e-6);
  CHECK(gradient_error(
            gradient.dweight, weight, [&](const Values& v) { return loss(x, v); }, 8) < 1e-6);
}

TEST_CASE("residual addition and RMSNorm, forward and backward") {
  FOR_EACH_BACKEND(backend) {
    // More rows than a GPU's backward pass has blocks; widths of models; one beyond what its registers hold.
    for (const auto& [rows, width] : {std::array<std::int64_t, 2>{1, 8},
                                      {5, 24},
                                      {7, 64},
                                      {67, 40},
                                      {200, 256},
                                      {3, 1000},
                                      {1100, 256},
                                      {3, 5120},
                                      {3, 16384},
                                      {2, 16392}}) {
      check_norm(backend, rows, width, true, true);
      check_norm(backend, rows, width, true, false);
      check_norm(backend, rows, width, false, true);
    }
  }
}

TEST_CASE("RMSNorm works in place") {
  FOR_EACH_BACKEND(backend) {
    constexpr std::int64_t rows = 9, width = 48;
    Bench bench(backend, {1, rows, 1, width});
    const Values x = normal_values(rows * width, 1), delta = normal_values(rows * width, 2);
    const Tensor weight = bench.tensor(bench.compute(), {width}, normal_values(width, 3));
    const Tensor update = bench.tensor(bench.compute(), {rows, width}, delta);
    const Tensor stream = bench.tensor(DType::f32, {rows, width}, x);
    const Tensor u = bench.poisoned(bench.compute(), {rows, width}),
                 rstd = bench.poisoned(DType::f32, {rows});
    bench->residual_rms_norm_forward(
        {.y = stream, .u = u, .rstd = rstd, .x = stream, .delta = update, .weight = weight, .eps = eps});
    const reference::RmsNorm expected = reference::rms_norm(x, bench.read(update), bench.read(weight), eps);
    CHECK(relative_error(bench.read(stream), expected.y) < 1e-6);
    CHECK(relative_error(bench.read(u), expected.u) < bench.tolerance());

    const Tensor du = bench.tensor(bench.compute(), {rows, width}, normal_values(rows * width, 4));
    const Values dy = normal_values(rows * width, 5);
    const Tensor apart = bench.poisoned(DType::f32, {rows, width}),
                 in_place = bench.tensor(DType::f32, {rows, width}, dy);
    const Tensor dweight = bench.tensor(DType::f32, {width}, Values(width));
    bench->residual_rms_norm_backward({.dx = apart,
                                       .dweight = dweight,
                                       .du = du,
                                       .dy = in_place,
                                       .y = stream,
                                       .rstd = rstd,
                                       .weight = weight});
    bench->residual_rms_norm_backward({.dx = in_place,
                                       .dweight = dweight,
                                       .du = du,
                                       .dy = in_place,
                                       .y = stream,
                                       .rstd = rstd,
                                       .weight = weight});
    CHECK(bench.read(apart) == bench.read(in_place));
  }
}
