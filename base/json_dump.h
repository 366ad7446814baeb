// JSON as text that is always well-formed.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace ratplus {

/// As json.dump(indent), with U+FFFD in the place of bytes that are no UTF-8, which names of files and hosts may have and
/// JSON cannot: dump() throws for them. A path is put with put_path (json_path.h), which keeps its bytes. Json is
/// nlohmann::json or nlohmann::ordered_json.
template <typename Json>
std::string json_dump(const Json& json, int indent = -1);

// Compiled in json_text.cpp alone: the library's writer takes a compiler a second.
extern template std::string json_dump(const nlohmann::json&, int);
extern template std::string json_dump(const nlohmann::ordered_json&, int);

}  // namespace ratplus
