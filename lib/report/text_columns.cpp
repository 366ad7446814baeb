#include "lib/report/text_columns.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace ratplus::report {
namespace {

/// The code point that begins at `at`, and how many bytes it has; a byte that begins none stands for itself.
std::pair<UChar32, std::size_t> code_point(std::string_view text, std::size_t at) {
  const auto rest = std::min<std::size_t>(text.size() - at, 4);
  UChar32 point = 0;
  std::int32_t taken = 0;
  U8_NEXT(reinterpret_cast<const std::uint8_t*>(text.data() + at), taken, static_cast<std::int32_t>(rest),
          point);
  return {point, static_cast<std::size_t>(taken)};
}

std::size_t columns_of(UChar32 point) {
  if (point < 0x300) return 1;
  const auto type = u_charType(point);
  if (type == U_NON_SPACING_MARK || type == U_ENCLOSING_MARK || type == U_FORMAT_CHAR) return 0;
  const int width = u_getIntPropertyValue(point, UCHAR_EAST_ASIAN_WIDTH);
  return width == U_EA_WIDE || width == U_EA_FULLWIDTH ? 2 : 1;
}

}  // namespace

std::size_t character_bytes(std::string_view text, std::size_t at) {
  return code_point(text, at).second;
}

std::size_t columns_of(std::string_view text) {
  std::size_t columns = 0;
  for (std::size_t at = 0; at < text.size();) {
    const auto [point, bytes] = code_point(text, at);
    columns += columns_of(point);
    at += bytes;
  }
  return columns;
}

std::string cut(const std::string& text, std::size_t columns) {
  std::size_t taken = 0, at = 0;
  while (at < text.size()) {
    const auto [point, bytes] = code_point(text, at);
    const auto wide = columns_of(point);
    if (taken + wide > columns) break;
    taken += wide;
    at += bytes;
  }
  return text.substr(0, at);
}

std::string shortened_within(std::string_view text, std::size_t columns, std::string_view mark) {
  const auto all = columns_of(text);
  if (all <= columns || columns <= columns_of(mark)) return std::string(text);
  const auto room = columns - columns_of(mark);
  const auto beginning = cut(std::string(text), room / 2);
  std::string end(text);
  while (columns_of(end) > room - columns_of(beginning)) end.erase(0, code_point(end, 0).second);
  return beginning + std::string(mark) + end;
}

std::string padded_left(std::string_view text, std::size_t columns) {
  const auto taken = columns_of(text);
  return std::string(columns > taken ? columns - taken : 0, ' ') + std::string(text);
}

std::string padded_right(std::string_view text, std::size_t columns) {
  const auto taken = columns_of(text);
  return std::string(text) + std::string(columns > taken ? columns - taken : 0, ' ');
}

}  // namespace ratplus::report
