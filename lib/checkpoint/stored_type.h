// StoredType: the type of a weight's elements in a file, converted from and to float32.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ratplus::checkpoint {

enum class StoredType : std::uint8_t { float32, float16, bfloat16 };

/// "float32", "float16", "bfloat16".
const char* to_string(StoredType type);
/// Reads these names, and "f32", "f16", "bf16". Throws Error beginning with `where`.
StoredType parse_stored_type(std::string_view text, std::string_view where);
std::int64_t bytes_of(StoredType type);

/// Elements in little-endian bytes, [out.size() * bytes_of(type)], to float32: exact.
void decode(StoredType type, const char* bytes, std::span<float> out);
/// The nearest values of `type`, ties to even. False where a finite value is beyond what the type can hold.
[[nodiscard]] bool encode(StoredType type, std::span<const float> values, char* bytes);

}  // namespace ratplus::checkpoint
