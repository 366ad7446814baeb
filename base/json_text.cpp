#include "base/json_dump.h"
#include "base/parse_json.h"

namespace ratplus {

template <typename Json>
std::string json_dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

template std::string json_dump(const nlohmann::json&, int);
template std::string json_dump(const nlohmann::ordered_json&, int);

template <typename Json>
Json parse_json(std::string_view text) {
  if (const auto at = text.find('\0'); at != std::string_view::npos)
    throw Json::parse_error::create(101, at + 1, "a NUL byte", nullptr);
  return Json::parse(text);
}

template nlohmann::json parse_json(std::string_view);
template nlohmann::ordered_json parse_json(std::string_view);

}  // namespace ratplus
