#include "lib/generate/text_stream.h"

#include <utility>

namespace ratplus::generate {

TextStream::TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stops)
    : decoder_(tokenizer), stops_(std::move(stops)) {}

void TextStream::follow(std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) decoder_.add(token);
}

std::string TextStream::add(std::int32_t token) {
  return stops_.add(decoder_.add(token));
}

std::string TextStream::finish() {
  std::string text = stops_.add(decoder_.finish());
  return text += stops_.finish();
}

}  // namespace ratplus::generate
