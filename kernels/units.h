// Units in which messages tell amounts.
#pragma once

#include <cstdint>

namespace ratplus {

/// Bytes in GiB.
constexpr double gib(std::int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 30);
}

}  // namespace ratplus
