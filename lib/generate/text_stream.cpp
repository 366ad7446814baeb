#include "lib/generate/text_stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace ratplus::generate {

const char* to_string(Trim trim) {
  switch (trim) {
    case Trim::blank:
      return "blank";
    case Trim::lines:
      return "lines";
    case Trim::none:
      break;
  }
  return "none";
}

Trim parse_trim(std::string_view name, std::string_view where) {
  for (const Trim trim : {Trim::none, Trim::blank, Trim::lines}) {
    if (name == to_string(trim)) return trim;
  }
  fail("{}: \"{}\" is none of none, blank, lines", where, name);
}

TextStream::TextStream(const data::Tokenizer& tokenizer, std::vector<std::string> stops, Trim trim)
    : trims_blank_(trim != Trim::none),
      trims_lines_(trim == Trim::lines),
      decoder_(tokenizer),
      stops_(std::move(stops)) {}

std::string TextStream::trimmed(std::string text) {
  if (text.empty()) return text;
  if (std::exchange(trims_blank_, false) && text.front() == ' ') text.erase(0, 1);
  if (trims_lines_) {
    text.erase(0, std::min(text.find_first_not_of('\n'), text.size()));
    trims_lines_ = text.empty();
  }
  return text;
}

void TextStream::follow(std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) decoder_.add(token);
}

std::string TextStream::add(std::int32_t token) {
  return stops_.add(trimmed(decoder_.add(token)));
}

std::string TextStream::finish() {
  std::string text = stops_.add(trimmed(decoder_.finish()));
  return text += stops_.finish();
}

}  // namespace ratplus::generate
