#include "lib/config/mixer_toml.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "lib/config/suggest.h"
#include "lib/model/mixers.h"

namespace ratplus::config {
namespace {

constexpr IntegerRange any_integer{0};

std::string known_mixers() {
  std::vector<std::string> names;
  model::for_each_mixer(
      [&]<typename M>(std::type_identity<M>) { names.push_back(fmt::format("\"{}\"", M::name)); });
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string mixer_forms() {
  return fmt::format("a mixer ({}, or a table such as {{ kind = \"rat\", chunk = 16, groups = 2 }})",
                     known_mixers());
}

model::MixerConfig read_name(const Value& value) {
  const auto* text = value.node->as_string();
  if (text == nullptr) fail_type(value, mixer_forms());
  model::MixerKind kind{};
  if (!model::parse_mixer(text->get(), kind)) {
    fail("{}: {} must be one of {}, not \"{}\"", value.where(), value.path, known_mixers(), text->get());
  }
  return model::default_mixer(kind);
}

[[noreturn]] void fail_unknown(const Value& field, std::string_view key,
                               const std::vector<std::string>& names, const std::string& what) {
  const std::string near = nearest(key, names);
  fail("{}: unknown key {}{} Keys of {}: {}", field.where(), field.path,
       near.empty() ? "." : fmt::format("; did you mean {}?", near), what, fmt::join(names, ", "));
}

model::MixerConfig read_table(const Value& value, const toml::table& table) {
  const auto* kind = table.get("kind");
  if (kind == nullptr) {
    fail("{}: {} has no kind; give one of {}", value.where(), value.path, known_mixers());
  }
  model::MixerConfig mixer = read_name(value.field("kind", *kind));
  const auto sizes = model::sizes_of(mixer.kind);
  std::vector<std::string> names = {"kind"};
  for (const auto& size : sizes) names.emplace_back(size.name);
  for (auto&& [key, node] : table) {
    if (key == "kind") continue;
    const std::string_view name = key.str();
    const Value field = value.field(name, node);
    const auto size = std::ranges::find_if(sizes, [&](const auto& s) { return name == s.name; });
    if (size == sizes.end()) {
      fail_unknown(field, name, names, fmt::format("\"{}\"", model::to_string(mixer.kind)));
    }
    mixer.*size->field = read_integer(field, any_integer);
  }
  return mixer;
}

model::MixerConfig read_mixer(const Value& value) {
  if (const auto* table = value.node->as_table()) return read_table(value, *table);
  return read_name(value);
}

/// One period of the layers: the global mixer, then every - 1 times the local one.
std::vector<model::MixerConfig> read_rule(const Value& value, const toml::table& table) {
  const std::vector<std::string> names = {"global", "local", "every"};
  constexpr IntegerRange period{2, 10'000};
  model::MixerConfig global, local;
  std::int64_t every = 2;
  for (auto&& [key, node] : table) {
    const Value field = value.field(key.str(), node);
    if (key == "global") {
      global = read_mixer(field);
    } else if (key == "local") {
      local = read_mixer(field);
    } else if (key == "every") {
      every = read_integer(field, period);
    } else {
      fail_unknown(field, key.str(), names, "a rule");
    }
  }
  for (const char* name : {"global", "local"}) {
    if (table.contains(name)) continue;
    fail(
        "{}: {} has no {}; a rule is {{ global = MIXER, local = MIXER, every = 2 }}: layer i has the global "
        "mixer "
        "where i mod every = 0, and the local one elsewhere",
        value.where(), value.path, name);
  }
  std::vector<model::MixerConfig> mixers(static_cast<std::size_t>(every), local);
  mixers.front() = global;
  return mixers;
}

std::string mixer_value(const model::MixerConfig& mixer) {
  const auto sizes = model::sizes_of(mixer.kind);
  if (sizes.empty()) return fmt::format("\"{}\"", model::to_string(mixer.kind));
  std::string text = fmt::format("{{ kind = \"{}\"", model::to_string(mixer.kind));
  for (const auto& size : sizes) text += fmt::format(", {} = {}", size.name, mixer.*size.field);
  return text + " }";
}

/// n of a rule that gives these mixers; 0 if none does.
std::size_t period_of(const std::vector<model::MixerConfig>& mixers) {
  const auto next = std::ranges::find(mixers.begin() + 1, mixers.end(), mixers.front());
  const auto n = static_cast<std::size_t>(next - mixers.begin());
  if (n < 2 || n == mixers.size()) return 0;
  for (std::size_t i = 0; i < mixers.size(); ++i) {
    if (mixers[i] != (i % n == 0 ? mixers[0] : mixers[1])) return 0;
  }
  return n;
}

}  // namespace

void read(const Value& value, std::vector<model::MixerConfig>& field, Any) {
  if (const auto* recurrence = value.node->as_boolean()) {
    field = {{recurrence->get() ? model::MixerKind::ratplus : model::MixerKind::gated_attention}};
    return;
  }
  if (repeats(value)) {
    field = read_rule(value, *value.node->as_table());
    return;
  }
  const auto* list = value.node->as_array();
  if (list == nullptr) {
    field = {read_mixer(value)};
    return;
  }
  if (list->empty()) {
    fail("{}: {} is an empty list; give one a layer, each {}", value.where(), value.path, mixer_forms());
  }
  field.clear();
  for (std::size_t i = 0; i < list->size(); ++i) field.push_back(read_mixer(value.element(i, *list->get(i))));
}

bool repeats(const Value& value) {
  const auto* table = value.node->as_table();
  return table != nullptr &&
         (table->contains("global") || table->contains("local") || table->contains("every"));
}

std::vector<model::MixerConfig> parse_mixers(const std::string& text, const std::string& where) {
  const auto begin = text.find_first_not_of(" \t");
  const bool is_name = begin != std::string::npos && text.find_first_of("[{\"'") == std::string::npos;
  try {
    const toml::table table = toml::parse("mixer = " + (is_name ? fmt::format("\"{}\"", text) : text));
    if (table.size() != 1) fail("{}: {} is more than one value", where, text);
    std::vector<model::MixerConfig> mixers;
    read(Value{table.get("mixer"), "mixer", where, text}, mixers, Any{});
    return mixers;
  } catch (const toml::parse_error& error) {
    fail(
        "{}: {}: no mixer ({}); write it as in a job file, for example '{{ kind = \"rat\", chunk = 16, "
        "groups = 2 }}'",
        where, text, error.description());
  }
}

std::string to_toml_value(const std::vector<model::MixerConfig>& mixers) {
  if (mixers.size() == 1) return mixer_value(mixers.front());
  if (const auto n = period_of(mixers); n > 0) {
    return fmt::format("{{ global = {}, local = {}, every = {} }}", mixer_value(mixers[0]),
                       mixer_value(mixers[1]), n);
  }
  std::vector<std::string> values;
  for (const auto& mixer : mixers) values.push_back(mixer_value(mixer));
  return fmt::format("[{}]", fmt::join(values, ", "));
}

}  // namespace ratplus::config
