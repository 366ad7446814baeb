#include "lib/serve/token_names.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"

namespace ratplus::serve {
namespace {

std::string shown(const std::string& bytes) {
  if (is_utf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char byte : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return text;
}

bool begins_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
}

}  // namespace

TokenNames::TokenNames(const generate::ModelText& text) {
  const auto known = text.tokenizer ? text.tokenizer->vocab_size() : 0;
  for (std::int32_t token = 0; token < text.model_tokens; ++token) {
    const bool has_text = token < known;
    const auto bytes = has_text ? text.tokenizer->bytes_of(token) : std::string();
    names_.push_back(has_text ? shown(bytes) : fmt::format("token_id:{}", token));
    characters_.push_back(has_text && !text.tokenizer->is_special(token)
                              ? static_cast<std::int32_t>(std::ranges::count_if(bytes, begins_character))
                              : 0);
  }
}

}  // namespace ratplus::serve
