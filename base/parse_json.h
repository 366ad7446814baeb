// parse_json: strict JSON, without bytes after its end.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace ratplus {

/// Json::parse, but a NUL byte is an error: the parser takes it for the end, and passes over what follows. Json is
/// nlohmann::json or nlohmann::ordered_json. Throws Json::parse_error.
template <typename Json = nlohmann::json>
Json parse_json(std::string_view text);

// Compiled in json_text.cpp alone: the library's parser takes a compiler more than a second.
extern template nlohmann::json parse_json(std::string_view);
extern template nlohmann::ordered_json parse_json(std::string_view);

}  // namespace ratplus
