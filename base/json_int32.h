// Token numbers out of JSON.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace ratplus {

/// The integer; nothing where the value is none, or none of 32 bits: the library's own conversion would wrap it.
inline std::optional<std::int32_t> int32_of(const nlohmann::json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  constexpr std::int64_t least = std::numeric_limits<std::int32_t>::min();
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{most}) return std::nullopt;
  const auto number = value.get<std::int64_t>();
  if (number < least || number > most) return std::nullopt;
  return static_cast<std::int32_t>(number);
}

}  // namespace ratplus
