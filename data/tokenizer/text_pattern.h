// TextPattern: the regular expressions that cut text into words before byte-pair encoding, by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace ratplus::data {

/// An expression as tokenizer.json files have it, for Oniguruma. What the two libraries read differently is refused, but
/// for \s, which is spelt out. Thread-safe.
class TextPattern {
 public:
  /// Throws Error; `where` begins the message.
  TextPattern(const std::string& expression, const std::string& where);
  ~TextPattern();
  TextPattern(TextPattern&&) noexcept;
  TextPattern& operator=(TextPattern&&) noexcept;

  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };
  /// The first match at or after `from` that is not empty; false if there is none. The text is well-formed UTF-8.
  bool find(std::string_view text, std::size_t from, Match& match) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::data
