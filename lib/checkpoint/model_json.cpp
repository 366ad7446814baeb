#include "lib/checkpoint/model_json.h"

#include <nlohmann/json.hpp>
#include <type_traits>

#include "base/error.h"
#include "lib/model/config_fields.h"

namespace ratplus::checkpoint {

using Json = nlohmann::ordered_json;

Json to_json(const model::ModelConfig& m) {
  Json json;
  model::for_each_field(m, [&](const char* name, const auto& field, const auto&) { json[name] = field; });
  return json;
}

std::int64_t integer_from_json(const Json& json, const char* key, const std::filesystem::path& file) {
  const auto& value = json.at(key);
  const bool too_large = value.is_number_unsigned() && value.get<std::uint64_t>() >> 63 != 0;
  if (!value.is_number_integer() || too_large)
    fail("{}: \"{}\" is not a whole number of 64 bits; the file is damaged", file.string(), key);
  return value.get<std::int64_t>();
}

model::ModelConfig model_from_json(const Json& j, const std::filesystem::path& file) {
  model::ModelConfig m;
  model::for_each_field(m, [&](const char* name, auto& field, const auto&) {
    if constexpr (std::is_same_v<decltype(field), std::int64_t&>) {
      field = integer_from_json(j, name, file);
    } else {
      j.at(name).get_to(field);
    }
  });
  check_model(m, file);
  return m;
}

void check_model(const model::ModelConfig& m, const std::filesystem::path& file) {
  bool sane = true;
  model::for_each_field(m, [&](const char*, const auto& field, const auto& allowed) {
    if constexpr (requires { allowed.contains(field); }) sane = sane && allowed.contains(field);
  });
  if (!sane || m.width % m.head_dim != 0) {
    fail("{}: its model's sizes are impossible; the file is damaged", file.string());
  }
}

}  // namespace ratplus::checkpoint
