#include "lib/report/terminal_text.h"

#include <algorithm>
#include <array>
#include <utility>

#include "data/utf8.h"

namespace ratplus::report {
namespace {

bool continues(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

std::string without_controls(std::string text) {
  data::repair_utf8(text);
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

/// At most this many code points.
std::string cut(const std::string& text, std::size_t columns) {
  std::size_t taken = 0, at = 0;
  for (; at < text.size(); ++at) {
    if (continues(text[at])) continue;
    if (taken++ == columns) break;
  }
  return text.substr(0, at);
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

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return !continues(c); }));
}

std::size_t columns_of(const TerminalLine& line) {
  std::size_t columns = 0;
  for (const Span& span : line) columns += columns_of(span.text);
  return columns;
}

TerminalLine fit(TerminalLine line, std::size_t columns) {
  TerminalLine fitted;
  std::size_t taken = 0;
  for (Span& span : line) {
    const std::string text = cut(without_controls(std::move(span.text)), columns - taken);
    taken += columns_of(text);
    if (!text.empty()) fitted.push_back({text, span.ink});
  }
  if (taken < columns) fitted.push_back({std::string(columns - taken, ' '), Ink::plain});
  return fitted;
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
