// TextStream: the text of generated tokens, as far as it may be shown.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "lib/generate/stop_strings.h"

namespace ratplus::generate {

/// What of the beginning of an answer is left out.
enum class Trim : std::uint8_t {
  none,
  blank,  ///< the blank that joins it to the prompt
  lines   ///< that, and newlines after it
};
const char* to_string(Trim trim);
/// Throws Error naming `where` for another name than none, blank and lines.
Trim parse_trim(std::string_view name, std::string_view where);

/// Takes the tokens of one sequence and gives their text in pieces. Together the pieces are decode() of all tokens, special
/// ones left out, up to the first stop string (StopStrings says which is the first). Held back are bytes that are not yet a
/// character, and the longest end of the text that a stop string may begin with. The time is linear in the number of tokens.
class TextStream {
 public:
  /// Stop strings that check_stop_strings accepts; they are found after what is trimmed. The tokenizer outlives the stream.
  TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stops, Trim trim = Trim::none);

  /// Before the first add(): the text follows those tokens, whose own text is not given. So the blank between both stays,
  /// which some tokenizers take from the beginning of a text, and a character that they begin may be ended. Where a tokenizer
  /// gives all text at the end, it is that after the characters with which it begins as their text does.
  void follow(std::span<const std::int32_t> tokens);
  /// The text to show now; often none. Throws Error for a token outside the tokenizer's vocabulary.
  std::string add(std::int32_t token);
  /// The text that was held back, where no token follows; none after a stop string.
  std::string finish();

  /// Whether a stop string ended the text: further tokens add nothing.
  bool stopped() const { return stops_.found(); }
  /// The stop string that did; empty as long as none did.
  const std::string& stop() const { return stops_.which(); }

 private:
  std::string trimmed(std::string text);
  std::string decoded(std::string text);

  const data::Tokenizer* tokenizer_;
  bool began_ = false;              ///< the decoder gave some text before its end
  std::string before_ = {};         ///< the text of the tokens that are followed, where it gave none of it
  bool trims_blank_, trims_lines_;  ///< as long as nothing else came
  data::TokenDecoder decoder_;
  StopStrings stops_;
};

}  // namespace ratplus::generate
