#include "lib/evaluation/text_bytes.h"

#include <fmt/format.h>

#include <string_view>

#include "base/error.h"
#include "data/tokenizer/tokenizer.h"

namespace ratplus::evaluation {
namespace {

/// Whether a token stands for characters that the vocabulary does not have. SentencePiece decodes it to this mark; other
/// tokenizers spell such characters in bytes.
bool is_unknown(const data::Tokenizer& tokenizer, std::int32_t token) {
  constexpr std::string_view mark = "\xe2\x81\x87";
  return tokenizer.decode({&token, 1}).find(mark) != std::string::npos &&
         tokenizer.bytes_of(token).find(mark) == std::string::npos;
}

}  // namespace

TextBytes::TextBytes(const data::Tokenizer& tokenizer, std::int64_t vocab_size)
    : of_token(static_cast<std::size_t>(vocab_size), unknown) {
  require(tokenizer.vocab_size() <= vocab_size, "a tokenizer of {} tokens for a vocabulary of {}",
          tokenizer.vocab_size(), vocab_size);
  for (std::int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
    if (is_unknown(tokenizer, token)) continue;
    of_token[static_cast<std::size_t>(token)] =
        tokenizer.is_special(token) ? 0 : static_cast<std::int32_t>(tokenizer.bytes_of(token).size());
  }
}

TextBytes text_bytes(const std::filesystem::path& dataset, const data::Manifest& manifest) {
  TextBytes none;
  if (manifest.tokenizer_file.empty()) {
    none.missing = fmt::format("{}: has no tokenizer; import it with --tokenizer", dataset.string());
    return none;
  }
  const auto file = dataset / manifest.tokenizer_file;
  try {
    const data::Tokenizer tokenizer(file);
    if (tokenizer.identity() != manifest.tokenizer)
      fail("{}: is {}, and the dataset was made by {}; put that one in its place", file.string(),
           tokenizer.identity(), manifest.tokenizer);
    if (tokenizer.vocab_size() > manifest.vocab_size)
      fail("{}: has {} tokens, and the dataset {}; put its own there", file.string(), tokenizer.vocab_size(),
           manifest.vocab_size);
    return {tokenizer, manifest.vocab_size};
  } catch (const Error& error) {
    none.missing = error.what();
    return none;
  }
}

}  // namespace ratplus::evaluation
