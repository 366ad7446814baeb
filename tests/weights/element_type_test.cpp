// The names of element types in other systems' files: one table for all that reads and writes them.
#include "lib/weights/element_type.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "lib/weights/safetensors_header.h"
#include "tests/support/messages.h"

namespace ratplus::weights {
namespace {

TEST_CASE("element types: each name stands for one type, and none for nothing") {
  for (const auto system : {&ElementType::pytorch, &ElementType::safetensors}) {
    std::set<std::string_view> names;
    for (const ElementType& type : element_types) {
      const std::string_view name = type.*system;
      if (name.empty()) continue;
      CAPTURE(name);
      CHECK(names.insert(name).second);
      CHECK(find_element_type(system, name) == &type);
    }
    CHECK(names.size() >= 12);
    CHECK(find_element_type(system, "") == nullptr);
    CHECK(find_element_type(system, "F31") == nullptr);
  }
}

TEST_CASE("element types: those that weights are stored in have all names, and their bytes") {
  for (const auto type : {StoredType::float32, StoredType::float16, StoredType::bfloat16}) {
    const ElementType& row = element_type_of(type);
    CHECK(row.type == type);
    CHECK(row.bytes_of(1) == bytes_of(type));
    CHECK(std::string(row.name) == to_string(type));
    CHECK(row.pytorch.starts_with("torch."));
    CHECK(!row.safetensors.empty());
  }
}

TEST_CASE("element types: a header's entry of each type has that type's size and name") {
  const auto header = [](std::string_view dtype, std::int64_t bytes) {
    const auto end = std::to_string(bytes);
    const std::string json =
        R"({"x":{"dtype":")" + std::string(dtype) + R"(","shape":[4],"data_offsets":[0,)" + end + "]}}";
    return parse_safetensors_header(json, bytes, "x.safetensors");
  };
  for (const ElementType& type : element_types) {
    if (type.safetensors.empty()) continue;
    CAPTURE(type.safetensors);
    const auto parsed = header(type.safetensors, type.bytes_of(4));
    CHECK(parsed.entries.at(0).tensor.type == type.type);
    CHECK(parsed.entries.at(0).tensor.type_name == type.name);
    CHECK(test::contains(test::message_of([&] { header(type.safetensors, type.bytes_of(4) + 1); }),
                         "does not fit its bytes"));
  }
  for (const char* name : {"F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4", "C64"}) {
    CAPTURE(std::string(name));
    CHECK(find_element_type(&ElementType::safetensors, name) != nullptr);
  }
  CHECK(find_element_type(&ElementType::safetensors, "F4")->bytes_of(3) == -1);  // no whole bytes
  CHECK(test::contains(test::message_of([&] { header("", 0); }), "unknown type"));
}

}  // namespace
}  // namespace ratplus::weights
