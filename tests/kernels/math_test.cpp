#include "kernels/cpu/math.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace ratplus;

TEST_CASE("elementary functions are exact to a few ulp") {
  double exp_error = 0, exp2_error = 0, sigmoid_error = 0, cdf_error = 0, pdf_error = 0;
  const auto relative = [](double result, double exact) { return std::abs(result - exact) / exact; };
  for (int i = -200000; i <= 200000; ++i) {
    const float x = static_cast<float>(i) * 4e-4f;  // [-80, 80]
    exp_error = std::max(exp_error, relative(cpu::exp(x), std::exp(double{x})));
    exp2_error = std::max(exp2_error, relative(cpu::exp2(x), std::exp2(double{x})));
    sigmoid_error = std::max(sigmoid_error, relative(cpu::sigmoid(x), 1 / (1 + std::exp(-double{x}))));
    const float z = x / 20;  // [-4, 4]
    const cpu::Normal normal = cpu::normal(z);
    cdf_error = std::max(cdf_error, relative(normal.cdf, std::erfc(-double{z} / std::sqrt(2.0)) / 2));
    pdf_error = std::max(pdf_error, relative(normal.pdf, std::exp(-0.5 * z * z) / std::sqrt(2 * M_PI)));
  }
  CHECK(exp_error < 3e-7);
  CHECK(exp2_error < 3e-7);
  CHECK(sigmoid_error < 4e-7);
  CHECK(cdf_error < 2e-6);
  CHECK(pdf_error < 2e-6);
}

TEST_CASE("elementary functions at the ends of their range") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(cpu::exp2(-infinity) == 0);
  CHECK(cpu::exp2(-1000) == 0);
  CHECK(cpu::exp2(0) == 1);
  CHECK(cpu::exp2(-126) > 0);
  CHECK(cpu::sigmoid(1000) == 1);
  CHECK(cpu::sigmoid(-1000) < 1e-37f);
  CHECK(cpu::sigmoid(infinity) == 1);
  CHECK(std::isnan(cpu::exp2(std::numeric_limits<float>::quiet_NaN())));
  CHECK(std::isnan(cpu::sigmoid(std::numeric_limits<float>::quiet_NaN())));
  CHECK(cpu::normal(50).cdf == 1);
  CHECK(cpu::normal(-50).cdf < 1e-36f);
  CHECK(cpu::normal(0).cdf == doctest::Approx(0.5));
}
