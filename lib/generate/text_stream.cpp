#include "lib/generate/text_stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace ratplus::generate {
namespace {

/// Bytes of the whole characters with which both texts begin.
std::size_t common_beginning(std::string_view a, std::string_view b) {
  auto n = static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
  while (n > 0 && n < a.size() && (static_cast<unsigned char>(a[n]) & 0xC0) == 0x80) --n;
  return n;
}

}  // namespace

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
    : tokenizer_(&tokenizer),
      trims_blank_(trim != Trim::none),
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
  std::vector<std::int32_t> plain;
  for (const std::int32_t token : tokens) {
    decoded(decoder_.add(token));
    if (!tokenizer_->is_special(token)) plain.push_back(token);
  }
  if (!began_) before_ = tokenizer_->decode(plain);
}

/// What the decoder gave.
std::string TextStream::decoded(std::string text) {
  began_ = began_ || !text.empty();
  return text;
}

std::string TextStream::add(std::int32_t token) {
  return stops_.add(trimmed(decoded(decoder_.add(token))));
}

std::string TextStream::finish() {
  std::string rest = decoder_.finish();
  if (!began_) rest.erase(0, common_beginning(rest, before_));
  std::string text = stops_.add(trimmed(std::move(rest)));
  return text += stops_.finish();
}

}  // namespace ratplus::generate
