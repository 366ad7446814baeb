// How many (query, key) pairs a pattern has (docs/model.md, section 20).
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/pattern.h"

namespace ratplus::model {

/// Pairs that one head attends to in a sequence of `tokens`.
inline double attended_pairs(const Pattern& pattern, std::int64_t tokens) {
  double pairs = 0;
  std::int64_t kept = 0;  // keys below the window that stay attended to
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t window_begin = t - pattern.window;
    if (window_begin > 0 && pattern.keeps(window_begin - 1)) ++kept;
    pairs += static_cast<double>(kept + std::min(t, pattern.window) + 1);
  }
  return pairs;
}

}  // namespace ratplus::model
