#include "data/tokenizer/token_numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace ratplus::data {

std::string to_text(const std::vector<std::int32_t>& tokens) {
  return fmt::format("{}", fmt::join(tokens, " "));
}

std::vector<std::int32_t> parse_tokens(std::string_view text, std::int64_t vocab_size) {
  constexpr std::string_view between = " \t\r\n,[]";
  std::vector<std::int32_t> tokens;
  for (std::size_t at = text.find_first_not_of(between); at != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(between, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    std::int32_t token = 0;
    const auto read = std::from_chars(word.data(), word.data() + word.size(), token);
    const bool too_large = read.ec == std::errc::result_out_of_range;
    if (!too_large && (read.ec != std::errc{} || read.ptr != word.data() + word.size()))
      fail("token {}: \"{}\" is no number", tokens.size() + 1, word);
    if (too_large || token < 0 || token >= vocab_size)
      fail("token {}: {} is outside the vocabulary of {}", tokens.size() + 1, word, vocab_size);
    tokens.push_back(token);
    at = text.find_first_not_of(between, end);
  }
  return tokens;
}

}  // namespace ratplus::data
