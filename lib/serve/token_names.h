// TokenNames: the strings by which answers name tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/generate/model_text.h"

namespace ratplus::serve {

class TokenNames {
 public:
  explicit TokenNames(const generate::ModelText& text);

  /// The token's text where that is whole characters, its bytes as "bytes:\xe2\x96" where not, the name of a special token;
  /// "token_id:17" where there is no tokenizer, or the tokenizer has no such token.
  const std::string& name(std::int32_t token) const { return names_[static_cast<std::size_t>(token)]; }
  /// Characters that begin in the token's text.
  std::int64_t characters(std::int32_t token) const { return characters_[static_cast<std::size_t>(token)]; }

 private:
  std::vector<std::string> names_;
  std::vector<std::int32_t> characters_;
};

}  // namespace ratplus::serve
