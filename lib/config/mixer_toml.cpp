#include "lib/config/mixer_toml.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "lib/model/mixers.h"

namespace ratplus::config {
namespace {

std::string known_mixers() {
  std::vector<std::string> names;
  model::for_each_mixer(
      [&]<typename M>(std::type_identity<M>) { names.push_back(fmt::format("\"{}\"", M::name)); });
  return fmt::format("{}", fmt::join(names, " or "));
}

model::MixerConfig read_mixer(const Value& value) {
  const auto* text = value.node->as_string();
  if (text == nullptr) fail_type(value, known_mixers());
  model::MixerConfig mixer;
  if (!model::parse_mixer(text->get(), mixer.kind)) {
    fail("{}: {} must be {}, not \"{}\"", value.where(), value.path, known_mixers(), text->get());
  }
  return mixer;
}

std::string quoted(const model::MixerConfig& mixer) {
  return fmt::format("\"{}\"", model::to_string(mixer.kind));
}

}  // namespace

void read(const Value& value, std::vector<model::MixerConfig>& field, Any) {
  if (const auto* recurrence = value.node->as_boolean()) {
    field = {{recurrence->get() ? model::MixerKind::ratplus : model::MixerKind::gated_attention}};
    return;
  }
  const auto* list = value.node->as_array();
  if (list == nullptr) {
    field = {read_mixer(value)};
    return;
  }
  if (list->empty())
    fail("{}: {} is an empty list; give {}, one a layer", value.where(), value.path, known_mixers());
  field.clear();
  for (std::size_t i = 0; i < list->size(); ++i) field.push_back(read_mixer(value.element(i, *list->get(i))));
}

std::string to_toml_value(const std::vector<model::MixerConfig>& mixers) {
  if (mixers.size() == 1) return quoted(mixers.front());
  std::vector<std::string> names;
  for (const auto& mixer : mixers) names.push_back(quoted(mixer));
  return fmt::format("[{}]", fmt::join(names, ", "));
}

}  // namespace ratplus::config
