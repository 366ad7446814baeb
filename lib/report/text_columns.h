// The columns that UTF-8 text takes, in a terminal or in a table, and text cut and padded by them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace ratplus::report {

/// Two for a wide character of East Asia, none for one that combines with the one before it, else one.
std::size_t columns_of(std::string_view text);

/// Bytes of the code point that begins at `at`; a byte that begins none is alone.
std::size_t character_bytes(std::string_view text, std::size_t at);

/// The beginning of a text: at most this many columns, whole code points.
std::string cut(const std::string& text, std::size_t columns);

/// Cut in its middle, with `mark` there: names may differ at their ends alone.
std::string shortened_within(std::string_view text, std::size_t columns, std::string_view mark = "\u2026");

/// With blanks before or behind it, to at least this many columns.
std::string padded_left(std::string_view text, std::size_t columns);
std::string padded_right(std::string_view text, std::size_t columns);

}  // namespace ratplus::report
