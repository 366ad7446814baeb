// A SentencePiece model's treatment of blanks: whether long texts may be cut at them before they are encoded, and which
// of them decoding leaves out.
#pragma once

#include <string_view>

namespace ratplus::data {

inline constexpr std::string_view sentencepiece_blank =
    "\xE2\x96\x81";  ///< U+2581, a blank as SentencePiece writes it

/// A model's treatment of blanks.
struct SentencePieceCut {
  bool allowed = false;         ///< parts cut at single blanks between words give the tokens of the whole
  bool adds_blank = false;      ///< the model puts a blank before every text ("dummy prefix")
  bool removes_blanks = false;  ///< it removes blanks before a text, and all but one between words
  bool rewrites_text = false;   ///< it changes decoded text as a whole, or its description cannot be read
};

/// Proved from the model's own description (its serialized ModelProto) or not allowed. It holds for BPE models without a
/// table of character replacements whose pieces have blanks at their beginnings only. Unigram models add up rounded
/// scores over the whole text, so their parts may come out otherwise.
SentencePieceCut sentencepiece_cut(std::string_view model);

}  // namespace ratplus::data
