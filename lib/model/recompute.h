// Recompute: what a training pass keeps from forward to backward, and what it computes again instead.
#pragma once

#include <cstdint>

namespace ratplus::model {

/// none: everything is kept. cheap: what one pass over memory makes again (norms, gate, GELU, recurrence and RoPE)
/// is not kept. block: only each block's input is kept; its forward runs again before its backward.
/// The result is the same, to the bit.
enum class Recompute : std::uint8_t { none, cheap, block };

const char* to_string(Recompute recompute);

}  // namespace ratplus::model
