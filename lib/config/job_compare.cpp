#include <fmt/format.h>
#include <fmt/ranges.h>

#include <type_traits>

#include "lib/config/keys.h"
#include "lib/config/mixer_toml.h"

namespace ratplus::config {
namespace {

template <typename T>
std::string text_of(const T& x) {
  if constexpr (std::is_enum_v<T>) {
    return fmt::format("\"{}\"", to_string(x));
  } else if constexpr (std::is_same_v<T, std::string>) {
    return fmt::format("\"{}\"", x);
  } else {
    return fmt::format("{}", x);
  }
}

std::string list_of(const std::vector<std::string>& texts) {
  return fmt::format("[{}]", fmt::join(texts, ", "));
}

/// By layer and head, and not in the short form, which is the same for a list of equal patterns and for one.
std::string text_of(const model::PatternPlan& plan) {
  std::vector<std::string> layers;
  for (const auto& heads : plan.layers()) {
    std::vector<std::string> patterns;
    for (const auto& head : heads) patterns.push_back(fmt::format("\"{}\"", to_string(head)));
    layers.push_back(patterns.size() == 1 ? patterns.front() : list_of(patterns));
  }
  const bool everywhere = layers.size() == 1 && plan.layers().front().size() == 1;
  return everywhere ? layers.front() : list_of(layers);
}

std::string text_of(const std::vector<model::PatternPlan>& plans) {
  std::vector<std::string> texts;
  for (const auto& plan : plans) texts.push_back(text_of(plan));
  return list_of(texts);
}

std::string text_of(const std::vector<model::MixerConfig>& mixers) {
  return to_toml_value(mixers);
}

std::string text_of(const std::vector<DataSource>& sources) {
  std::vector<std::string> texts;
  for (const DataSource& source : sources)
    texts.push_back(fmt::format("{}: {}", source.directory, source.weight));
  return list_of(texts);
}

}  // namespace

std::vector<std::string> differences(const JobConfig& stored, const JobConfig& job) {
  // for_each_key visits one job: the stored one's fields are kept by number, of which each has one type.
  std::vector<const void*> fields;
  for_each_key(stored,
               [&](const char*, const char*, const auto& field, const auto&) { fields.push_back(&field); });
  std::vector<std::string> found;
  std::size_t number = 0;
  for_each_key(job, [&](const char* section, const char* key, const auto& field, const auto&) {
    const auto& before = *static_cast<decltype(&field)>(fields[number++]);
    if (field == before) return;
    found.push_back(fmt::format("{}.{} = {} (was {})", section, key, text_of(field), text_of(before)));
  });
  return found;
}

}  // namespace ratplus::config
