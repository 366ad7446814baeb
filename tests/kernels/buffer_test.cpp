#include "kernels/buffer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "base/error.h"

using namespace ratplus;

TEST_CASE("a buffer is aligned, zeroed, and moves") {
  Buffer buffer(Device{}, 1000);
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 256 == 0);
  const auto* bytes = static_cast<const std::uint8_t*>(buffer.data());
  CHECK(std::all_of(bytes, bytes + 1000, [](std::uint8_t byte) { return byte == 0; }));
  CHECK(buffer.as_tensor(DType::f32).numel() == 250);
  const void* address = buffer.data();
  Buffer other = std::move(buffer);
  CHECK(other.data() == address);
  CHECK(other.bytes() == 1000);
  Buffer third(Device{}, 16);
  third = std::move(other);
  CHECK(third.data() == address);
  CHECK_THROWS_AS(Buffer(Device{}, 7).as_tensor(DType::f32), std::logic_error);
  CHECK(Buffer(Device{}, 0).data() == nullptr);
}

TEST_CASE("a buffer that does not fit says what it needs and what there is") {
  // The smaller one fits into the address space: without a look at the memory it would be granted.
  for (const std::int64_t gib : {std::int64_t{1} << 14, std::int64_t{1} << 30}) {
    try {
      Buffer huge(Device{}, gib << 30);
      FAIL("2^44 bytes or more were allocated");
    } catch (const Error& error) {
      const std::string needs = "needs " + std::to_string(gib) + ".0 GiB, ";
      CHECK(std::string(error.what()).find(needs) != std::string::npos);
      CHECK(std::string(error.what()).find(" GiB are available; ") != std::string::npos);
    }
  }
}

TEST_CASE("a buffer of several pieces is zeroed to its end") {
  const Buffer buffer(Device{}, (std::int64_t{5} << 20) + 3);
  const auto* bytes = static_cast<const std::uint8_t*>(buffer.data());
  CHECK(std::all_of(bytes, bytes + buffer.bytes(), [](std::uint8_t byte) { return byte == 0; }));
}

TEST_CASE("an arena counts, allocates once, and hands out the same plan again") {
  Arena arena(Device{});
  struct Parts {
    Tensor weights, moments, activations;
  };
  const auto build = [&] {
    Parts parts;
    arena.category("weights");
    parts.weights = arena.allocate(DType::f32, {10, 3});
    arena.category("activations");
    parts.activations = arena.allocate(DType::bf16, {5});
    arena.category("weights");
    parts.moments = arena.allocate(DType::f32, {100});
    return parts;
  };
  const Parts counted = build();
  CHECK_FALSE(arena.committed());
  CHECK_FALSE(counted.weights.empty());
  CHECK(arena.total_bytes() == 256 + 256 + 512);
  arena.commit();
  CHECK(arena.committed());
  const Parts parts = build();
  CHECK(arena.total_bytes() == 1024);
  REQUIRE(arena.plan().size() == 2);
  CHECK(arena.plan()[0].category == "weights");
  CHECK(arena.plan()[0].bytes == 256 + 512);
  CHECK(arena.plan()[1].category == "activations");
  CHECK(arena.plan()[1].bytes == 256);
  const auto address = [](const Tensor& tensor) { return reinterpret_cast<std::uintptr_t>(tensor.raw()); };
  CHECK(address(parts.activations) == address(parts.weights) + 256);
  CHECK(address(parts.moments) == address(parts.weights) + 512);
  CHECK(address(parts.weights) % 256 == 0);
  parts.moments.as<float>()[99] = 1;  // real memory now
  CHECK_THROWS_AS(arena.allocate(DType::f32, {1}), std::logic_error);
  CHECK_THROWS_AS(arena.commit(), std::logic_error);
}
