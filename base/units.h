// Amounts as messages write them.
#pragma once

#include <fmt/core.h>

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace ratplus {

/// Bytes in GiB.
constexpr double gib(std::int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 30);
}

/// "1 rank", "8 ranks"; of words whose plural does not just end in s, `many` is that: "2 batches".
std::string counted(std::integral auto count, std::string_view one, std::string_view many = {}) {
  if (count == 1) return fmt::format("1 {}", one);
  return many.empty() ? fmt::format("{} {}s", count, one) : fmt::format("{} {}", count, many);
}

}  // namespace ratplus
