#include "lib/checkpoint/model_json.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <type_traits>

#include "base/error.h"
#include "lib/model/config_fields.h"
#include "lib/model/mixers.h"

namespace ratplus::checkpoint {

using Json = nlohmann::ordered_json;

namespace {

/// Whether one mixer serves all layers and is RAT+ or its baseline: earlier versions know these as "recurrence".
bool known_before(const std::vector<model::MixerConfig>& mixers) {
  const auto is = [&](model::MixerKind kind) { return mixers == std::vector<model::MixerConfig>{{kind}}; };
  return is(model::MixerKind::ratplus) || is(model::MixerKind::gated_attention);
}

/// A mixer's name, or, with sizes, an object of its kind and them.
Json to_json(const model::MixerConfig& mixer) {
  const auto sizes = model::sizes_of(mixer.kind);
  if (sizes.empty()) return model::to_string(mixer.kind);
  Json json = {{"kind", model::to_string(mixer.kind)}};
  for (const auto& size : sizes) json[size.name] = mixer.*size.field;
  return json;
}

/// One for all layers, or a list of one a layer.
Json to_json(const std::vector<model::MixerConfig>& mixers) {
  Json list = Json::array();
  for (const auto& mixer : mixers) list.push_back(to_json(mixer));
  return mixers.size() == 1 ? list.front() : list;
}

std::vector<model::MixerConfig> mixers_from_json(const Json& j, const std::filesystem::path& file) {
  if (!j.contains("mixer")) {
    return {{j.at("recurrence").get<bool>() ? model::MixerKind::ratplus : model::MixerKind::gated_attention}};
  }
  const auto read = [&](const Json& value) {
    model::MixerKind kind{};
    const auto name = (value.is_object() ? value.at("kind") : value).get<std::string>();
    if (model::parse_mixer(name, kind)) {
      auto mixer = model::default_mixer(kind);
      for (const auto& size : model::sizes_of(kind)) {
        if (value.is_object()) mixer.*size.field = integer_from_json(value, size.name, file);
      }
      return mixer;
    }
    fail("{}: its model has the mixer \"{}\", which this version does not know", file.string(), name);
  };
  const Json& mixer = j.at("mixer");
  if (!mixer.is_array()) return {read(mixer)};
  std::vector<model::MixerConfig> mixers;
  for (const auto& value : mixer) mixers.push_back(read(value));
  return mixers;
}

}  // namespace

Json to_json(const model::ModelConfig& m) {
  Json json;
  model::for_each_field(m, [&](const char* name, const auto& field, const auto&) {
    if constexpr (std::is_same_v<decltype(field), const std::vector<model::MixerConfig>&>) {
      if (known_before(field) && m.kv_heads == 0) {  // in their words, so that they read such files
        json["recurrence"] = field.front().kind == model::MixerKind::ratplus;
      } else {
        json[name] = to_json(field);
      }
    } else if (std::string_view(name) != "kv_heads" || m.kv_heads != 0) {
      json[name] = field;
    }
  });
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
      // Descriptions of before have heads of keys for all.
      if (std::string_view(name) == "kv_heads" && !j.contains(name)) return;
      field = integer_from_json(j, name, file);
    } else if constexpr (std::is_same_v<decltype(field), std::vector<model::MixerConfig>&>) {
      field = mixers_from_json(j, file);
    } else {
      j.at(name).get_to(field);
    }
  });
  check_model(m, file);
  return m;
}

void check_model(const model::ModelConfig& m, const std::filesystem::path& file) {
  bool sane = m.mixers.size() == 1 || std::ssize(m.mixers) == m.layers;
  model::for_each_field(m, [&](const char*, const auto& field, const auto& allowed) {
    if constexpr (requires { allowed.contains(field); }) sane = sane && allowed.contains(field);
  });
  if (!sane || m.width % m.head_dim != 0) {
    fail("{}: its model's sizes are impossible; the file is damaged", file.string());
  }
  model::check_sizes(m, fmt::format("{}: its mixer", file.string()),
                     fmt::format("{}: its kv_heads", file.string()));
}

}  // namespace ratplus::checkpoint
