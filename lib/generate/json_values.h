// Values of JSON that lines of results consist of.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json_dump.h"
#include "base/json_int32.h"

namespace ratplus::generate {

/// A float32 as JSON writes it with the fewest digits that give it back. JSON has no infinity: what is below is -9999.
inline double json_number(float value) {
  if (!std::isfinite(value)) return -9999;
  return std::strtod(fmt::format("{}", value).c_str(), nullptr);
}

/// The beginning of what was sent, which may be as long as a line or a body.
inline std::string beginning(std::string_view text, std::size_t most = 60) {
  return std::string(text.substr(0, most)) + (text.size() > most ? "..." : "");
}

/// The list of token numbers under a key. Throws Error, beginning with `where`.
inline std::vector<std::int32_t> tokens_from_json(const nlohmann::ordered_json& json, const char* key,
                                                  const std::string& where) {
  if (!json.at(key).is_array()) fail("{}: \"{}\" is no list of token numbers", where, key);
  std::vector<std::int32_t> tokens;
  for (const auto& value : json.at(key)) {
    const auto token = int32_of(value);
    if (!token)
      fail("{}: \"{}\" holds {}, which is no token's number", where, key, beginning(json_dump(value)));
    tokens.push_back(*token);
  }
  return tokens;
}

/// The text under a key. Throws Error, beginning with `where`.
inline std::string text_from_json(const nlohmann::ordered_json& json, const char* key,
                                  const std::string& where) {
  if (!json.at(key).is_string())
    fail("{}: \"{}\" is a JSON {}, not a text", where, key, json.at(key).type_name());
  return json.at(key).get<std::string>();
}

}  // namespace ratplus::generate
