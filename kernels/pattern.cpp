#include "kernels/pattern.h"

#include <array>
#include <charconv>

#include "kernels/error.h"

namespace ratplus {
namespace {

std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::int64_t parse_number(std::string_view field, std::string_view name, std::string_view pattern) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc{} || end != field.data() + field.size()) {
    fail("pattern \"{}\": the {} is \"{}\", which is no whole number", pattern, name, field);
  }
  return value;
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
  pattern.dilation = fields[0] == "none" || fields[0] == "-1" ? Pattern::no_dilation
                                                              : parse_number(fields[0], "dilation", text);
  if (fields[0] == "0") fail("pattern \"{}\": the dilation is at least 1; write none for no dilation", text);
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
