#include "kernels/pattern.h"

#include <array>
#include <charconv>

#include "kernels/error.h"
#include "kernels/text.h"

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

}  // namespace

std::string to_string(const Pattern& pattern) {
  if (pattern == Pattern{}) return "dense";
  const std::string dilation =
      pattern.dilation == Pattern::no_dilation ? "none" : std::to_string(pattern.dilation);
  return fmt::format("{},{},{}", dilation, pattern.window, pattern.sinks);
}

Pattern parse_pattern(std::string_view text) {
  if (trim(text) == "dense") return Pattern{};
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
