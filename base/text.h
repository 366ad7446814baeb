// Text: what the readers of short texts (patterns, overrides) share.
#pragma once

#include <string_view>

namespace ratplus {

/// Without the blanks and tabs around it.
inline std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace ratplus
