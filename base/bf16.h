// bf16_t: a number of 16 bits, as stored.
#pragma once

#include <cstdint>

namespace ratplus {

/// The 16 high bits of a float32.
struct bf16_t {
  std::uint16_t bits;
};

}  // namespace ratplus
