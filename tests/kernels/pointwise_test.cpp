#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("output gate, forward and backward") {
  FOR_EACH_BACKEND(backend) {
    for (const Shape& shape : {Shape{1, 8}, Shape{5, 37}, Shape{100, 300}}) {
      Bench bench(backend);
      const DType c = bench.compute();
      const std::int64_t n = count(shape);
      const Tensor a = bench.tensor(c, shape, normal_values(n, 1)),
                   o = bench.strided(c, shape, normal_values(n, 2, 4));
      const Tensor dz = bench.tensor(c, shape, normal_values(n, 3)), z = bench.poisoned(c, shape);
      const Tensor da = bench.poisoned(c, shape), dgate = bench.strided_poisoned(c, shape);
      bench->output_gate_forward(z, a, o);
      const Values a0 = bench.read(a), o0 = bench.read(o), dz0 = bench.read(dz);
      CHECK(relative_error(bench.read(z), reference::output_gate(a0, o0)) < bench.tolerance());
      bench->output_gate_backward(da, dgate, dz, a, o);
      const auto loss = [&](const Values& at_a, const Values& at_o) {
        return dot(dz0, reference::output_gate(at_a, at_o));
      };
      CHECK(gradient_error(
                bench.read(da), a0, [&](const Values& x) { return loss(x, o0); }, 4) < bench.tolerance());
      CHECK(gradient_error(
                bench.read(dgate), o0, [&](const Values& x) { return loss(a0, x); }, 5) < bench.tolerance());
      const Values apart = bench.read(da), gate = bench.read(dgate);
      bench->output_gate_backward(dz, dgate, dz, a, o);  // in place
      CHECK(bench.read(dz) == apart);
      CHECK(bench.read(dgate) == gate);
    }
  }
}

TEST_CASE("GELU, forward and backward") {
  FOR_EACH_BACKEND(backend) {
    for (const Shape& shape : {Shape{1, 8}, Shape{5, 37}, Shape{100, 300}}) {
      Bench bench(backend);
      const DType c = bench.compute();
      const std::int64_t n = count(shape);
      const Tensor h = bench.strided(c, shape, normal_values(n, 1, 2)),
                   dz = bench.tensor(c, shape, normal_values(n, 2));
      const Tensor z = bench.poisoned(c, shape), dh = bench.strided_poisoned(c, shape);
      bench->gelu_forward(z, h);
      const Values h0 = bench.read(h), dz0 = bench.read(dz);
      CHECK(relative_error(bench.read(z), reference::gelu(h0)) < bench.tolerance());
      bench->gelu_backward(dh, dz, h);
      const auto loss = [&](const Values& x) { return dot(dz0, reference::gelu(x)); };
      CHECK(gradient_error(bench.read(dh), h0, loss, 3) < bench.tolerance());
      const Values apart = bench.read(dh);
      bench->gelu_backward(dz, dz, h);  // in place
      CHECK(bench.read(dz) == apart);
    }
  }
}
