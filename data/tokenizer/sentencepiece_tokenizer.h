// SentencePiece models as tokenizers.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer/tokenizer.h"

namespace ratplus::data {

/// From the bytes of a model; `file` is its name, for messages. Throws Error if they are none.
std::unique_ptr<TokenizerModel> sentencepiece_tokenizer(const std::string& bytes, const std::string& file);

}  // namespace ratplus::data
