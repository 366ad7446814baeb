// ElementType: the types that elements have in files of other systems, and what each system calls them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "lib/checkpoint/stored_type.h"

namespace ratplus::weights {

using checkpoint::StoredType;

struct ElementType {
  const char* name;                ///< as messages name it
  std::int64_t bits;               ///< of an element; elements below a byte are packed
  std::optional<StoredType> type;  ///< empty: weights are not stored in it
  std::string_view pytorch;        ///< the storage's class in PyTorch's files; empty: is not in them
  std::string_view safetensors;    ///< its name in safetensors; empty: is not in them

  /// Bytes of so many elements; -1 if 64 bits cannot count them, or they are no whole bytes.
  constexpr std::int64_t bytes_of(std::int64_t count) const {
    std::int64_t all = 0;
    if (count < 0 || __builtin_mul_overflow(count, bits, &all) || all % 8 != 0) return -1;
    return all / 8;
  }
};

inline constexpr std::array element_types = {
    ElementType{"float32", 32, StoredType::float32, "torch.FloatStorage", "F32"},
    ElementType{"float16", 16, StoredType::float16, "torch.HalfStorage", "F16"},
    ElementType{"bfloat16", 16, StoredType::bfloat16, "torch.BFloat16Storage", "BF16"},
    ElementType{"float64", 64, std::nullopt, "torch.DoubleStorage", "F64"},
    ElementType{"int64", 64, std::nullopt, "torch.LongStorage", "I64"},
    ElementType{"int32", 32, std::nullopt, "torch.IntStorage", "I32"},
    ElementType{"int16", 16, std::nullopt, "torch.ShortStorage", "I16"},
    ElementType{"int8", 8, std::nullopt, "torch.CharStorage", "I8"},
    ElementType{"uint64", 64, std::nullopt, "", "U64"},
    ElementType{"uint32", 32, std::nullopt, "", "U32"},
    ElementType{"uint16", 16, std::nullopt, "", "U16"},
    ElementType{"uint8", 8, std::nullopt, "torch.ByteStorage", "U8"},
    ElementType{"bool", 8, std::nullopt, "torch.BoolStorage", "BOOL"},
    ElementType{"complex64", 64, std::nullopt, "torch.ComplexFloatStorage", "C64"},
    ElementType{"complex128", 128, std::nullopt, "torch.ComplexDoubleStorage", ""},
    ElementType{"float8_e4m3", 8, std::nullopt, "", "F8_E4M3"},
    ElementType{"float8_e5m2", 8, std::nullopt, "", "F8_E5M2"},
    ElementType{"float8_e4m3fnuz", 8, std::nullopt, "", "F8_E4M3FNUZ"},
    ElementType{"float8_e5m2fnuz", 8, std::nullopt, "", "F8_E5M2FNUZ"},
    ElementType{"float8_e8m0", 8, std::nullopt, "", "F8_E8M0"},
    ElementType{"float6_e2m3", 6, std::nullopt, "", "F6_E2M3"},
    ElementType{"float6_e3m2", 6, std::nullopt, "", "F6_E3M2"},
    ElementType{"float4", 4, std::nullopt, "", "F4"},
};

/// The type that a system calls so, where `system` is &ElementType::pytorch or &ElementType::safetensors; null if it is
/// none of its.
constexpr const ElementType* find_element_type(std::string_view ElementType::*system, std::string_view name) {
  const auto found = std::ranges::find(element_types, name, system);
  return name.empty() || found == element_types.end() ? nullptr : &*found;
}

/// The row of a type that weights are stored in.
constexpr const ElementType& element_type_of(StoredType type) {
  return *std::ranges::find(element_types, type, &ElementType::type);
}

}  // namespace ratplus::weights
