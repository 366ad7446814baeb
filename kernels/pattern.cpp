#include "kernels/pattern.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "base/text.h"

namespace ratplus {
namespace {

std::int64_t parse_number(std::string_view field, std::string_view name, std::string_view pattern) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc{} || end != field.data() + field.size()) {
    fail("pattern \"{}\": the {} is \"{}\", which is no whole number", pattern, name, field);
  }
  return value;
}

/// The dilation of a pattern in writing, where 0 (no_dilation in the struct) stands for nothing.
std::int64_t parse_dilation(std::string_view field, std::string_view pattern) {
  if (field == "none" || field == "-1") return Pattern::no_dilation;
  const std::int64_t dilation = parse_number(field, "dilation", pattern);
  if (dilation == 0) fail("pattern \"{}\": the dilation is at least 1; write none for no dilation", pattern);
  return dilation;
}

/// Blanks for the no-break spaces (U+00A0) with which report.html keeps a label in one line.
std::string with_blanks(std::string_view text) {
  constexpr std::string_view no_break = "\u00a0";
  std::string blanks(text);
  for (auto at = blanks.find(no_break); at != std::string::npos; at = blanks.find(no_break, at))
    blanks.replace(at, no_break.size(), " ");
  return blanks;
}

/// "D = 16, W = 256, I = 4" or "no dilation, W = 64": how tables and legends write a pattern.
Pattern parse_label(std::string_view label) {
  const auto bad = [&](std::string_view what) {
    fail("pattern \"{}\": {}; write D = 16, W = 256, I = 4 (no dilation for D; W and I may be left out)",
         label, what);
  };
  Pattern pattern;
  std::string given;  // the letters so far
  for (std::string_view rest = label;;) {
    const auto comma = rest.find(',');
    const auto field = trim(rest.substr(0, comma));
    const auto equals = field.find('=');
    const auto name = trim(field.substr(0, equals));
    if (field == "no dilation") {
      given += 'D';
      pattern.dilation = Pattern::no_dilation;
    } else if (equals == std::string_view::npos || name.size() != 1 ||
               std::string_view("DWI").find(name) == std::string_view::npos) {
      bad(fmt::format("\"{}\" is none of D = ..., W = ..., I = ...", field));
    } else {
      given += name;
      const auto number = trim(field.substr(equals + 1));
      if (name == "D") pattern.dilation = parse_dilation(number, label);
      if (name == "W") pattern.window = parse_number(number, "window", label);
      if (name == "I") pattern.sinks = parse_number(number, "number of sinks", label);
    }
    if (given.find(given.back()) + 1 != given.size()) bad(fmt::format("{} is given twice", given.back()));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (given.find('D') == std::string::npos) bad("D is missing");
  return pattern;
}

}  // namespace

/// Each query has the W + 1 keys of its window, or all keys where there are fewer; of the M = T - 1 - W queries and more
/// below a key's window, the kept key at s < M has M - s.
double attended_pairs(const Pattern& pattern, std::int64_t tokens) {
  const auto real = [](std::int64_t x) { return static_cast<double>(x); };
  const std::int64_t near = std::min(tokens, pattern.window + 1), below = tokens - near;
  double pairs = real(near) * real(near + 1) / 2 + real(below) * real(near);
  const std::int64_t sinks = std::min(pattern.sinks, below);
  pairs += real(sinks) * real(below) - real(sinks) * real(sinks - 1) / 2;
  if (pattern.dilation == Pattern::no_dilation) return pairs;
  const std::int64_t first = pattern.sinks / pattern.dilation + 1, last = below / pattern.dilation;
  if (last < first) return pairs;
  const double count = real(last - first + 1);
  return pairs + count * real(below + 1) - real(pattern.dilation) * real(first + last) * count / 2;
}

std::string to_string(const Pattern& pattern) {
  if (pattern == Pattern{}) return "dense";
  const std::string dilation =
      pattern.dilation == Pattern::no_dilation ? "none" : std::to_string(pattern.dilation);
  return fmt::format("{},{},{}", dilation, pattern.window, pattern.sinks);
}

Pattern parse_pattern(std::string_view text) {
  if (trim(text) == "dense") return Pattern{};
  if (const auto label = with_blanks(text);
      label.find('=') != std::string::npos || label.find("no dilation") != std::string::npos) {
    const Pattern pattern = parse_label(trim(label));
    validate(pattern, fmt::format("pattern \"{}\"", trim(label)));
    return pattern;
  }
  std::array<std::string_view, 3> fields;
  std::size_t count = 0;
  for (std::string_view rest = text;; ++count) {
    const auto comma = rest.find(',');
    if (count < fields.size()) fields[count] = trim(rest.substr(0, comma));
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (count + 1 != fields.size()) {
    fail("pattern \"{}\": write dilation,window,sinks (as in 16,256,4 or none,256,4), or dense", text);
  }
  Pattern pattern;
  pattern.dilation = parse_dilation(fields[0], text);
  pattern.window = parse_number(fields[1], "window", text);
  pattern.sinks = parse_number(fields[2], "number of sinks", text);
  validate(pattern, fmt::format("pattern \"{}\"", text));
  return pattern;
}

void validate(const Pattern& pattern, std::string_view where) {
  if (pattern.dilation != Pattern::no_dilation && pattern.dilation < 1) {
    fail("{}: the dilation is {}; it is at least 1, or none", where, pattern.dilation);
  }
  if (pattern.window < 0) fail("{}: the window is {}; it is at least 0", where, pattern.window);
  if (pattern.sinks < 0) fail("{}: the number of sinks is {}; it is at least 0", where, pattern.sinks);
}

}  // namespace ratplus
