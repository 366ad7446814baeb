#include "lib/config/toml_value.h"

#include <fmt/core.h>

namespace ratplus::config {

std::string to_toml_value(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\u{:04X}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string to_toml_value(double x) {
  std::string digits = fmt::format("{}", x);
  return digits.find_first_of(".en") == std::string::npos ? digits + ".0" : digits;
}

}  // namespace ratplus::config
