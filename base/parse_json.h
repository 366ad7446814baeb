// parse_json: strict JSON, without bytes after its end.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

namespace ratplus {

/// Levels of lists and objects in each other that parse_json takes: they cost stack where JSON is copied or written.
constexpr std::int64_t most_json_levels = 256;

/// The deepest level of lists and objects in each other, of JSON that may be damaged.
std::int64_t json_levels(std::string_view text);

/// Json::parse, but three more things are errors: a NUL byte, which the parser takes for the end; a name that comes twice in an
/// object, where the parser keeps the last value; more than most_json_levels. Throws Json::parse_error, whose message is short.
/// Json: nlohmann::json or nlohmann::ordered_json.
template <typename Json = nlohmann::json>
Json parse_json(std::string_view text);

// Compiled in json_text.cpp alone: the library's parser takes a compiler more than a second.
extern template nlohmann::json parse_json(std::string_view);
extern template nlohmann::ordered_json parse_json(std::string_view);

}  // namespace ratplus
