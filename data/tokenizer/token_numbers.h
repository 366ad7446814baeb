// Token numbers as text, as `ratplus tokenize` writes and reads them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::data {

/// Numbers apart by blanks.
std::string to_text(const std::vector<std::int32_t>& tokens);

/// Numbers apart by blanks, line ends, commas or brackets. Throws Error naming what is none, or is not in [0, vocab_size),
/// and its place.
std::vector<std::int32_t> parse_tokens(std::string_view text, std::int64_t vocab_size);

}  // namespace ratplus::data
