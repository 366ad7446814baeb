// Text for a terminal: widths in columns, colours that take none.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lib/report/text_columns.h"

namespace ratplus::report {

struct TerminalStyle {
  bool colour = true;
  bool braille = true;  ///< or else characters of ASCII

  /// The mark of cut text.
  std::string_view mark() const { return braille ? "\u2026" : "..."; }
};

/// The 8 colours of lines, by number modulo 8; warnings; what is less important.
enum class Ink { line0, line1, line2, line3, line4, line5, line6, line7, plain, bold, warning, faint };
Ink line_ink(std::size_t number);

struct Span {
  std::string text;
  Ink ink = Ink::plain;
};
using TerminalLine = std::vector<Span>;

std::size_t columns_of(const TerminalLine& line);

/// Filled with blanks, or cut, to exactly this many columns: cut between words, with `mark` in the place of what is left
/// out, so that no number is taken for a shorter one. Control characters of the text become '?', so that what a log holds
/// cannot command the terminal.
TerminalLine fit(TerminalLine line, std::size_t columns, std::string_view mark = TerminalStyle{}.mark());

/// The same for plain text, which is not filled with blanks.
std::string shortened(std::string_view text, std::size_t columns, std::string_view mark = "...");

/// Broken between words, or where a word is longer than a line, within it, into lines of at most this many columns.
std::vector<std::string> wrap_words(std::string_view text, std::size_t columns);

/// With escape sequences, if there is colour.
std::string to_text(const TerminalLine& line, const TerminalStyle& style);

}  // namespace ratplus::report
