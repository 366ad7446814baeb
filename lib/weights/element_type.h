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
  const char* name;  ///< as messages name it
  std::int64_t bytes;
  std::optional<StoredType> type;  ///< empty: weights are not stored in it
  std::string_view pytorch;        ///< the storage's class in PyTorch's files; empty: is not in them
  std::string_view safetensors;    ///< its name in safetensors; empty: is not in them
};

inline constexpr std::array element_types = {
    ElementType{"float32", 4, StoredType::float32, "torch.FloatStorage", "F32"},
    ElementType{"float16", 2, StoredType::float16, "torch.HalfStorage", "F16"},
    ElementType{"bfloat16", 2, StoredType::bfloat16, "torch.BFloat16Storage", "BF16"},
    ElementType{"float64", 8, std::nullopt, "torch.DoubleStorage", "F64"},
    ElementType{"int64", 8, std::nullopt, "torch.LongStorage", "I64"},
    ElementType{"int32", 4, std::nullopt, "torch.IntStorage", "I32"},
    ElementType{"int16", 2, std::nullopt, "torch.ShortStorage", "I16"},
    ElementType{"int8", 1, std::nullopt, "torch.CharStorage", "I8"},
    ElementType{"uint64", 8, std::nullopt, "", "U64"},
    ElementType{"uint32", 4, std::nullopt, "", "U32"},
    ElementType{"uint16", 2, std::nullopt, "", "U16"},
    ElementType{"uint8", 1, std::nullopt, "torch.ByteStorage", "U8"},
    ElementType{"bool", 1, std::nullopt, "torch.BoolStorage", "BOOL"},
    ElementType{"complex64", 8, std::nullopt, "torch.ComplexFloatStorage", ""},
    ElementType{"complex128", 16, std::nullopt, "torch.ComplexDoubleStorage", ""},
    ElementType{"float8_e4m3", 1, std::nullopt, "", "F8_E4M3"},
    ElementType{"float8_e5m2", 1, std::nullopt, "", "F8_E5M2"},
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
