#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/host_memory.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("copy moves every element, strided or not") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    for (const Shape& shape : {Shape{7}, Shape{5, 3}, Shape{3, 4, 5}, Shape{2, 3, 4, 5}, Shape{37, 1031}}) {
      const Values x = normal_values(count(shape), 1);
      const Tensor source = bench.strided(DType::f32, shape, x);
      const Tensor target = bench.poisoned(DType::f32, shape);
      bench->copy(target, source);
      CHECK(bench.read(target) == x);
      const Tensor wide = bench.strided_poisoned(DType::f32, shape);
      bench->copy(wide, target);
      CHECK(bench.read(wide) == x);
    }
    // A slice of the middle dimension, as a part of a projection is.
    const Values x = normal_values(2 * 3 * 5 * 4, 2);
    const Tensor part = bench.tensor(DType::f32, {2, 3, 5, 4}, x).select(2, 3);
    const Values y = bench.read(part);
    for (std::size_t row = 0; row < 6; ++row) {
      for (std::size_t c = 0; c < 4; ++c) CHECK(y[row * 4 + c] == x[(row * 5 + 3) * 4 + c]);
    }
  }
}

TEST_CASE("copy converts to bf16 and back, to the nearest, ties to even") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7; 1 + 3 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    const Values x{1, 1 + std::ldexp(1, -8), 1 + 3 * std::ldexp(1, -8), -1.0078125, 3.0e38, 0};
    const Values expected{1, 1, 1 + std::ldexp(1, -6), -1.0078125};
    const Tensor half = bench.poisoned(DType::bf16, {6}), back = bench.poisoned(DType::f32, {6});
    bench->copy(half, bench.tensor(DType::f32, {6}, x));
    bench->copy(back, half);
    const Values y = bench.read(back);
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(y[i] == expected[i]);
    CHECK(std::abs(y[4] / 3.0e38 - 1) < 0.004);
    CHECK(y[5] == 0);
    const Tensor nan = bench.poisoned(DType::f32, {1}), nan_half = bench.tensor(DType::bf16, {1}, {1});
    bench->copy(nan_half, nan);
    CHECK(std::isnan(bench.read(nan_half)[0]));
  }
}

TEST_CASE("fill and add") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Shape shape{37, 1031};
    const Tensor x = bench.strided_poisoned(DType::f32, shape);
    bench->fill(x, 2.5f);
    CHECK(bench.read(x) == Values(static_cast<std::size_t>(count(shape)), 2.5));
    const Tensor labels = bench.poisoned(DType::i32, {1000});
    bench->fill(labels, -100);
    CHECK(bench.read(labels) == Values(1000, -100));
    const Values a = normal_values(count(shape), 1), b = normal_values(count(shape), 2);
    const Tensor y = bench.tensor(DType::f32, shape, a);
    bench->add(y, bench.strided(DType::f32, shape, b));
    Values expected = a;
    for (std::size_t i = 0; i < a.size(); ++i) expected[i] += b[i];
    CHECK(relative_error(bench.read(y), expected) < 1e-7);
  }
}

TEST_CASE("memory of the host is zeroed, and takes what a device copies there") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Values x = normal_values(100000, 3);
    HostMemory memory(bench->device(), static_cast<std::int64_t>(x.size() * sizeof(float)));
    const auto values = memory.as<float>();
    REQUIRE(values.size() == x.size());
    CHECK(std::ranges::all_of(values, [](float value) { return value == 0; }));
    CHECK((bench->device().kind == DeviceKind::cuda || !memory.locked()));
    bench->download(values.data(), bench.tensor(DType::f32, {100000}, x));
    for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(values[i] == static_cast<float>(x[i]));
    HostMemory moved = std::move(memory);
    CHECK(moved.as<float>().data() == values.data());
    CHECK(memory.bytes() == 0);
  }
  CHECK_THROWS_AS(HostMemory(Device{}, std::int64_t{1} << 60), Error);
}
