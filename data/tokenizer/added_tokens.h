// The added tokens of a tokenizer.json: texts that are tokens of their own wherever they occur.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/word_cutter.h"

namespace ratplus::data {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool takes_left_blanks = false;   ///< "lstrip"
  bool takes_right_blanks = false;  ///< "rstrip"
  bool special = false;             ///< no text: the beginning or end of one, say
};

class AddedTokens {
 public:
  /// From "added_tokens". `normalizer` may be null. Throws Error naming what is not implemented.
  AddedTokens(const nlohmann::json& json, const Normalizer* normalizer, const std::string& file);

  const std::vector<AddedToken>& tokens() const { return tokens_; }

  /// Cuts a text around the added tokens in it: first around those that are looked for in the text as it is, then the
  /// rest is normalized, and cut around those that are looked for in normalized text. `words` gets the normalized text
  /// between, and whether it is the text's beginning; `token` gets ids.
  void cut(std::string_view text, const std::function<void(std::string_view, bool)>& words,
           const std::function<void(std::int32_t)>& token) const;

 private:
  /// Tokens that are looked for in the same text, by their first byte; sorted.
  class Finder {
   public:
    void add(std::string content, const AddedToken& token);
    void finish();
    template <typename Words, typename Token>
    void cut(std::string_view text, const Words& words, const Token& token) const;

   private:
    struct Entry {
      std::string content;
      AddedToken token;
    };
    const Entry* match(std::string_view text) const;
    std::vector<Entry> by_first_[256];
    std::string first_bytes_;
  };

  std::vector<AddedToken> tokens_;
  Finder in_text_;
  Finder in_normalized_;
  const Normalizer* normalizer_;
};

}  // namespace ratplus::data
