#include "kernels/tensor.h"

#include <doctest/doctest.h>

#include <numeric>
#include <stdexcept>
#include <vector>

using namespace ratplus;

TEST_CASE("a fresh tensor is contiguous and row-major") {
  std::vector<float> memory(24);
  const Tensor x(memory.data(), DType::f32, {2, 3, 4});
  CHECK(x.rank() == 3);
  CHECK(x.numel() == 24);
  CHECK(x.bytes() == 96);
  CHECK(x.stride(0) == 12);
  CHECK(x.stride(1) == 4);
  CHECK(x.stride(2) == 1);
  CHECK(x.contiguous());
  CHECK(x.describe() == "f32 [2, 3, 4]");
  CHECK(Tensor().empty());
  CHECK(Tensor().numel() == 0);
  CHECK(Tensor().describe() == "empty");
  CHECK(size_of(DType::bf16) == 2);
  CHECK(size_of(DType::u8) == 1);
}

TEST_CASE("slice, select and view address the right elements") {
  std::vector<std::int32_t> memory(2 * 3 * 4);
  std::iota(memory.begin(), memory.end(), 0);
  const Tensor x(memory.data(), DType::i32, {2, 3, 4});
  const Tensor row = x.select(1, 2);  // [2, 4]
  CHECK(row.rank() == 2);
  CHECK(row.size(1) == 4);
  CHECK(row.stride(0) == 12);
  CHECK_FALSE(row.contiguous());
  CHECK(row.as<std::int32_t>()[row.stride(0) + 3] == 1 * 12 + 2 * 4 + 3);
  const Tensor part = x.slice(2, 1, 3);  // [2, 3, 2]
  CHECK(part.numel() == 12);
  CHECK_FALSE(part.contiguous());
  CHECK(part.as<std::int32_t>()[part.stride(0) + 2 * part.stride(1) + 1] == 12 + 8 + 2);
  CHECK(x.slice(0, 1, 2).contiguous());
  CHECK(x.slice(0, 1, 2).view({12}).as<std::int32_t>()[5] == 17);
  CHECK(x.view({6, 4}).select(0, 5).as<std::int32_t>()[3] == 23);
  const Tensor halves = row.split(1, 2);  // [2, 2, 2]
  CHECK(halves.size(1) == 2);
  CHECK(halves.as<std::int32_t>()[halves.stride(0) + halves.stride(1) + halves.stride(2)] ==
        row.as<std::int32_t>()[row.stride(0) + 3]);
  CHECK(x.split(2, 2).select(3, 1).select(2, 1).as<std::int32_t>()[0] == 3);
}

TEST_CASE("broken promises about tensors are logic errors") {
  std::vector<float> memory(24);
  const Tensor x(memory.data(), DType::f32, {2, 3, 4});
  CHECK_THROWS_AS(x.as<std::int32_t>(), std::logic_error);
  CHECK_THROWS_AS(x.view({5, 5}), std::logic_error);
  CHECK_THROWS_AS(x.slice(1, 0, 2).view({16}), std::logic_error);
  CHECK_THROWS_AS(x.slice(1, 2, 4), std::logic_error);
  CHECK_THROWS_AS(x.slice(3, 0, 1), std::logic_error);
  CHECK_THROWS_AS(x.select(0, 2), std::logic_error);
  CHECK_THROWS_AS(x.split(1, 2), std::logic_error);
  CHECK_THROWS_AS(x.split(3, 1), std::logic_error);
  CHECK_THROWS_AS(Tensor(memory.data(), DType::f32, {1, 1, 1, 1, 1, 1}), std::logic_error);
  CHECK_THROWS_AS(Tensor(memory.data(), DType::f32, {-1}), std::logic_error);
}
