// The text in a line of JSON.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace ratplus::data {

/// Puts \ufffd in place of each escape in a JSON text that is half of a surrogate pair without the other (\ud800), which
/// Python writes and no parser takes; returns how many.
std::int64_t repair_half_pairs(std::string& text);

/// The JSON text with each number that overflows a double in the largest one's place, so that such a number, which JSON
/// allows, ends no parser. The line itself where there is none, which is nearly always.
std::string tame_numbers(const std::string& json);

/// The way out for a line that is not JSON: of a text over several lines the first is a bracket alone.
std::string_view line_advice(std::string_view line);

struct JsonText {
  std::string text;
  bool repaired = false;  ///< the line had halves of surrogate pairs
};

/// The string under `key` of a JSON object, after repair_half_pairs where there are any. The line is well-formed UTF-8.
/// Throws Error, with where() before it, for a line that is not JSON, no object, or has no such string.
JsonText json_text(std::string& line, const std::string& key, const std::function<std::string()>& where);

}  // namespace ratplus::data
