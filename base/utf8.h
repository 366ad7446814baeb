// UTF-8: making text well-formed before a tokenizer or a JSON parser sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ratplus {

/// U+FFFD, the replacement of ill-formed bytes.
inline constexpr std::string_view replacement = "\xEF\xBF\xBD";

/// Puts U+FFFD in place of each maximal ill-formed subsequence (Unicode 15, 3.9: as browsers do); returns how
/// many.
std::int64_t repair_utf8(std::string& text);

/// The character that a text begins with, or the bytes there that are none.
struct Utf8Scan {
  int bytes;         ///< of the character, or of the ill-formed subsequence
  bool well_formed;  ///< whether it is a character
  bool cut;          ///< the text ends before it shows whether these bytes are one
};

/// Reads one character of `text`, which is not empty (Unicode 15, table 3-7).
Utf8Scan scan_utf8(std::string_view text);

/// Whether all of the text is well-formed.
bool is_utf8(std::string_view text);

}  // namespace ratplus
