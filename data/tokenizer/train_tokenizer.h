// Training a SentencePiece tokenizer of LLaMA's kind: BPE with byte fallback.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace ratplus::data {

struct TokenizerTraining {
  std::int64_t vocab_size = 32000;  ///< pieces, the three special ones and the 256 bytes included
  double line_share = 1;  ///< of the text's lines that are used, evenly spread: bounds memory and time
};

/// Trains on the documents that `next_document` hands out until it returns false; what it throws is rethrown.
/// The model, as the bytes of a tokenizer.model, is a function of the documents and the settings alone. Ids
/// 0, 1 and 2 are unknown, begin and end; text is left as it is (no normalisation), digits are pieces of
/// their own, a blank goes before every text. Throws Error when the text cannot give a vocabulary of this
/// size.
std::string train_tokenizer(const TokenizerTraining& training,
                            const std::function<bool(std::string&)>& next_document);

}  // namespace ratplus::data
