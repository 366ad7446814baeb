// Pattern: which keys a query attends to (docs/model.md, section 6).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ratplus {

/// A sparsity pattern (D, W, I). The query at position t attends to the key at position s <= t when
///     (s + 1) mod D == 0   or   t - s <= W   or   s < I.
/// W counts the tokens before the query, so W = 0 still has the token itself. D = 1 is dense causal
/// attention; D = no_dilation leaves only the window and the sinks.
struct Pattern {
  static constexpr std::int64_t no_dilation = 0;

  std::int64_t dilation = 1;
  std::int64_t window = 0;
  std::int64_t sinks = 0;

  bool dense() const { return dilation == 1; }
  /// Whether every later query keeps attending to the key at s (it is dilated or a sink).
  bool keeps(std::int64_t s) const {
    return s < sinks || (dilation != no_dilation && (s + 1) % dilation == 0);
  }
  bool attends(std::int64_t t, std::int64_t s) const { return s <= t && (t - s <= window || keeps(s)); }

  friend bool operator==(const Pattern&, const Pattern&) = default;
};

/// The patterns of one layer's heads: one for all heads, or one a head.
using HeadPatterns = std::span<const Pattern>;

/// (query, key) pairs of one head in a sequence of `tokens` (docs/model.md, section 20).
double attended_pairs(const Pattern& pattern, std::int64_t tokens);

/// "16,256,4", or "none,256,4" without dilation; "dense" for D = 1.
std::string to_string(const Pattern& pattern);
/// Reads what to_string writes, the reference's -1 for "none", and labels of reports: "D = 16, W = 256, I = 4" or "no
/// dilation, W = 64", where W and I may be left out. Throws Error that says what is wrong.
Pattern parse_pattern(std::string_view text);
/// Throws Error unless D >= 1 or none, W >= 0, I >= 0; `where` names the place for the message.
void validate(const Pattern& pattern, std::string_view where);

}  // namespace ratplus
