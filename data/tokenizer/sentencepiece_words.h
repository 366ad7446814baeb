// SentencePiece's error texts, fit for a message.
#pragma once

#include <string_view>

namespace ratplus::data {

/// Its words without the source line and the condition in brackets that it puts before them.
inline std::string_view plain_words(std::string_view message) {
  const auto bracket = message.rfind("] ");
  return bracket == std::string_view::npos ? message : message.substr(bracket + 2);
}

}  // namespace ratplus::data
