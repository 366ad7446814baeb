// parse_json: strict JSON, without bytes after its end.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace ratplus {

/// Json::parse, but a NUL byte is an error: the parser takes it for the end, and passes over what follows. Json is
/// nlohmann::json or nlohmann::ordered_json. Throws Json::parse_error.
template <typename Json = nlohmann::json>
Json parse_json(std::string_view text) {
  if (const auto at = text.find('\0'); at != std::string_view::npos)
    throw Json::parse_error::create(101, at + 1, "a NUL byte", nullptr);
  return Json::parse(text);
}

}  // namespace ratplus
