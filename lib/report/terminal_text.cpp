#include "lib/report/terminal_text.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/utf8.h"

namespace ratplus::report {
namespace {

std::string without_controls(std::string text) {
  repair_utf8(text);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7F) text[i] = '?';
    // U+0080 to U+009F, which some terminals take for escape sequences, too.
    const bool upper_control =
        c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (upper_control) text.replace(i, 2, "?");
  }
  return text;
}

/// Columns that are left of a text which has too many: up to the end of a word, and `mark`'s; all where the first word
/// alone is too long. Blanks before the text's first word are not taken for the end of one.
std::size_t columns_kept(std::string_view text, std::size_t columns, std::size_t mark) {
  const auto room = columns - mark;
  const auto first_word = text.find_first_not_of(' ');
  std::size_t taken = 0, end_of_word = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == ' ' && at > first_word && text[at - 1] != ' ' && taken < room) end_of_word = taken;
    const auto character = text.substr(at, character_bytes(text, at));
    taken += columns_of(character);
    at += character.size();
  }
  constexpr std::size_t longest_number = 16;  // what is longer is a path or a name, and told by its beginning
  return room - end_of_word < longest_number && end_of_word > 0 ? end_of_word + 1
                                                                : room;  // a blank before the mark
}

const char* code_of(Ink ink) {
  // The 16 colours that every terminal has, in its own shades.
  constexpr std::array codes = {"34", "33", "32", "35", "36", "31", "94", "95", "0", "1", "1;31", "2"};
  return codes[static_cast<std::size_t>(ink)];
}

}  // namespace

Ink line_ink(std::size_t number) {
  return static_cast<Ink>(number % 8);
}

std::size_t columns_of(const TerminalLine& line) {
  std::size_t columns = 0;
  for (const Span& span : line) columns += columns_of(span.text);
  return columns;
}

TerminalLine fit(TerminalLine line, std::size_t columns, std::string_view mark) {
  std::string whole;
  for (Span& span : line) whole += span.text = without_controls(std::move(span.text));
  const bool too_long = columns_of(whole) > columns;
  const auto mark_columns = too_long ? std::min(columns_of(mark), columns) : 0;
  const auto kept = too_long ? columns_kept(whole, columns, mark_columns) : columns;
  TerminalLine fitted;
  std::size_t taken = 0;
  for (Span& span : line) {
    const std::string text = cut(span.text, kept - taken);
    taken += columns_of(text);
    if (!text.empty()) fitted.push_back({text, span.ink});
    if (text.size() < span.text.size()) break;  // a wide character had no room: what follows has none either
  }
  if (too_long) {
    fitted.push_back({cut(std::string(mark), mark_columns), Ink::faint});
    taken += mark_columns;
  }
  if (taken < columns) fitted.push_back({std::string(columns - taken, ' '), Ink::plain});
  return fitted;
}

std::string shortened(std::string_view text, std::size_t columns, std::string_view mark) {
  if (columns_of(text) <= columns) return std::string(text);
  std::string short_text;
  for (const Span& span : fit({{std::string(text)}}, columns, mark)) short_text += span.text;
  return short_text.erase(short_text.find_last_not_of(' ') + 1);
}

std::vector<std::string> wrap_words(std::string_view text, std::size_t columns) {
  columns = std::max<std::size_t>(columns, 1);
  std::vector<std::string> lines(1);
  while (!text.empty()) {
    std::string word(text.substr(0, text.find(' ')));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (!lines.back().empty() && columns_of(lines.back()) + 1 + columns_of(word) <= columns) {
      lines.back() += ' ' + word;
      continue;
    }
    if (!lines.back().empty()) lines.emplace_back();
    for (; columns_of(word) > columns; lines.emplace_back()) {
      lines.back() = cut(word, columns);
      if (lines.back().empty())
        lines.back() = word.substr(0, character_bytes(word, 0));  // a wide one in one column
      word.erase(0, lines.back().size());
    }
    lines.back() = std::move(word);
  }
  return lines;
}

std::string to_text(const TerminalLine& line, const TerminalStyle& style) {
  std::string text;
  for (const Span& span : line) {
    const bool plain = !style.colour || span.ink == Ink::plain;
    text += plain ? span.text : std::string("\x1b[") + code_of(span.ink) + "m" + span.text + "\x1b[0m";
  }
  return text;
}

}  // namespace ratplus::report
