// The keys of a sequence as a pattern divides them: those that every later query keeps (dilated or sinks),
// and those that only the window of a query reaches. Both in ascending position, so that the keys that one
// query attends to are a contiguous range of each list.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/pattern.h"

namespace ratplus::cpu {

enum class Keys { kept, windowed };

class KeyList {
 public:
  struct Range {
    std::int64_t begin, end;
  };

  KeyList(const Pattern& pattern, Keys which) : pattern_(pattern), which_(which) {}

  /// How many keys of the list have a position below n.
  std::int64_t count_below(std::int64_t n) const {
    if (n <= 0) return 0;
    const std::int64_t sinks = std::min(n, pattern_.sinks);
    const std::int64_t kept = sinks + (dilated() ? n / pattern_.dilation - sinks / pattern_.dilation : 0);
    return which_ == Keys::kept ? kept : n - kept;
  }

  /// Position of key j of the list.
  std::int64_t position(std::int64_t j) const {
    const std::int64_t sinks = pattern_.sinks, d = pattern_.dilation;
    if (which_ == Keys::kept) return j < sinks ? j : (sinks / d + j - sinks + 1) * d - 1;
    if (!dilated()) return sinks + j;
    // The positions s with (s + 1) mod D != 0 come in groups of D - 1; skip those among the sinks.
    const std::int64_t number = sinks - sinks / d + j;
    return number / (d - 1) * d + number % (d - 1);
  }

  /// The keys of the list that the query at t attends to.
  Range attended(std::int64_t t) const {
    const std::int64_t begin = which_ == Keys::kept ? 0 : count_below(t - pattern_.window);
    return {begin, count_below(t + 1)};
  }

 private:
  bool dilated() const { return pattern_.dilation != Pattern::no_dilation; }

  Pattern pattern_;
  Keys which_;
};

}  // namespace ratplus::cpu
