// float16 and bfloat16: all 65536 values there and back, and the rounding between them.
#include "lib/checkpoint/stored_type.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace ratplus;
using checkpoint::StoredType;

namespace {

float decoded(StoredType type, std::uint16_t bits) {
  char bytes[2];
  std::memcpy(bytes, &bits, 2);
  float value = 0;
  checkpoint::decode(type, bytes, std::span(&value, 1));
  return value;
}

std::uint16_t encoded(StoredType type, float value, bool fits = true) {
  std::uint16_t bits = 0;
  char bytes[2];
  CHECK(checkpoint::encode(type, std::span<const float>(&value, 1), bytes) == fits);
  std::memcpy(&bits, bytes, 2);
  return bits;
}

}  // namespace

TEST_CASE("every value of 16 bits comes back from float32, not-a-numbers and subnormals too") {
  for (const auto type : {StoredType::float16, StoredType::bfloat16}) {
    int different = 0;
    for (std::uint32_t bits = 0; bits < 65536; ++bits)
      different += encoded(type, decoded(type, static_cast<std::uint16_t>(bits))) != bits;
    CHECK(different == 0);
  }
}

TEST_CASE("known values") {
  CHECK(decoded(StoredType::float16, 0x3c00) == 1.0f);
  CHECK(decoded(StoredType::float16, 0xc000) == -2.0f);
  CHECK(decoded(StoredType::float16, 0x7bff) == 65504.0f);
  CHECK(decoded(StoredType::float16, 0x0001) == 0x1p-24f);
  CHECK(std::isinf(decoded(StoredType::float16, 0x7c00)));
  CHECK(std::isnan(decoded(StoredType::float16, 0x7c01)));
  CHECK(decoded(StoredType::bfloat16, 0x3f80) == 1.0f);
  CHECK(decoded(StoredType::bfloat16, 0x0001) == 0x1p-133f);
}

TEST_CASE("rounding is to the nearest, ties to even") {
  CHECK(encoded(StoredType::bfloat16, 1.0f + 0x1p-8f) == 0x3f80);      // a tie
  CHECK(encoded(StoredType::bfloat16, 1.0f + 3 * 0x1p-8f) == 0x3f82);  // a tie
  CHECK(encoded(StoredType::bfloat16, 1.0f + 0x1p-8f + 0x1p-20f) == 0x3f81);
  CHECK(encoded(StoredType::float16, 1.0f + 0x1p-11f) == 0x3c00);
  CHECK(encoded(StoredType::float16, 1.0f + 3 * 0x1p-11f) == 0x3c02);
  CHECK(encoded(StoredType::float16, 0x1p-25f) == 0x0000);  // half the smallest
  CHECK(encoded(StoredType::float16, 3 * 0x1p-25f) == 0x0002);
  CHECK(encoded(StoredType::float16, 0x1p-14f - 0x1p-26f) == 0x0400);  // up to the first normal number
  CHECK(encoded(StoredType::float16, -0.0f) == 0x8000);
}

TEST_CASE("a finite value that the type cannot hold is told") {
  CHECK(encoded(StoredType::float16, 65519.0f) == 0x7bff);
  encoded(StoredType::float16, 65520.0f, false);
  encoded(StoredType::float16, -1e6f, false);
  encoded(StoredType::bfloat16, std::numeric_limits<float>::max(), false);
  CHECK(encoded(StoredType::float16, std::numeric_limits<float>::infinity()) == 0x7c00);
}
