// UTF-8: making text well-formed before a tokenizer or a JSON parser sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ratplus::data {

/// Bytes of the well-formed UTF-8 character (Unicode 15, table 3-7) that `text` begins with, 0 if it begins
/// with none.
int utf8_character(std::string_view text);

/// Puts U+FFFD in place of each maximal ill-formed subsequence (Unicode 15, 3.9: as browsers do); returns how
/// many.
std::int64_t repair_utf8(std::string& text);

}  // namespace ratplus::data
