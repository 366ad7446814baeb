// Hugging Face tokenizer.json files: byte-level and byte-fallback BPE.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer/tokenizer.h"

namespace ratplus::data {

/// From the text of a tokenizer.json; `file` is its name, for messages. Its ids are those of the library `tokenizers`
/// with add_special_tokens = False: special tokens that a text spells out become their ids. Throws Error for what is no
/// such file, and with the name of any part that is not implemented here.
std::unique_ptr<TokenizerModel> huggingface_tokenizer(const std::string& json, const std::string& file);

}  // namespace ratplus::data
