// Prompts that are longer than a sequence has room for.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace ratplus::generate {

/// What a prompt that is too long loses: nothing (it is refused), its beginning, or its middle.
enum class Cut : std::uint8_t { none, left, middle };
const char* to_string(Cut cut);
/// "none", "left", "middle"; Error, beginning with `where`, for any other.
Cut parse_cut(std::string_view name, std::string_view where);

/// At most `most` of the tokens, at least 1: by Cut::left the last ones, by Cut::middle the first floor(most / 2) and the
/// last of the rest. Tokens that are no more than that stay as they are.
std::vector<std::int32_t> cut_tokens(std::vector<std::int32_t> tokens, std::int64_t most, Cut cut);

}  // namespace ratplus::generate
