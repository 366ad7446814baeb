#include "lib/config/pattern_toml.h"

#include <fmt/ranges.h>

#include "base/error.h"
#include "lib/config/suggest.h"

namespace ratplus::config {
namespace {

constexpr const char* pattern_forms =
    "a pattern ({ dilation = 16, window = 256, sinks = 4 }, \"16,256,4\" or \"dense\")";
constexpr IntegerRange not_negative{0};
constexpr IntegerRange positive{1};

std::int64_t read_dilation(const Value& value) {
  if (const auto* text = value.node->as_string(); text != nullptr && text->get() == "none") {
    return Pattern::no_dilation;
  }
  if (!value.node->is_number()) fail_type(value, "a positive integer or \"none\"");
  return read_integer(value, positive);
}

Pattern read_pattern_table(const Value& value, const toml::table& table) {
  const std::vector<std::string> names = {"dilation", "window", "sinks"};
  Pattern pattern;
  for (auto&& [key, node] : table) {
    const Value field = value.field(key.str(), node);
    if (key == "dilation") {
      pattern.dilation = read_dilation(field);
    } else if (key == "window") {
      pattern.window = read_integer(field, not_negative);
    } else if (key == "sinks") {
      pattern.sinks = read_integer(field, not_negative);
    } else {
      const std::string near = nearest(key.str(), names);
      fail("{}: unknown key {}{} Keys of a pattern: {}", field.where(), field.path,
           near.empty() ? "." : fmt::format("; did you mean {}?", near), fmt::join(names, ", "));
    }
  }
  if (!table.contains("dilation")) {
    fail(
        "{}: {} has no dilation; give a positive integer (1 is dense), or \"none\" for the window and the "
        "sinks alone",
        value.where(), value.path);
  }
  return pattern;
}

Pattern read_pattern(const Value& value) {
  if (const auto* table = value.node->as_table()) return read_pattern_table(value, *table);
  const auto* text = value.node->as_string();
  if (text == nullptr) fail_type(value, pattern_forms);
  try {
    return parse_pattern(text->get());
  } catch (const Error& error) {
    fail("{}: {}: {}", value.where(), value.path, error.what());
  }
}

std::vector<Pattern> read_heads(const Value& value) {
  const auto* list = value.node->as_array();
  if (list == nullptr) return {read_pattern(value)};
  if (list->empty())
    fail("{}: {} is an empty list; give {}, one a head", value.where(), value.path, pattern_forms);
  std::vector<Pattern> heads;
  for (std::size_t h = 0; h < list->size(); ++h)
    heads.push_back(read_pattern(value.element(h, *list->get(h))));
  return heads;
}

std::string pattern_table(const Pattern& pattern) {
  const std::string dilation =
      pattern.dilation == Pattern::no_dilation ? "\"none\"" : fmt::format("{}", pattern.dilation);
  return fmt::format("{{ dilation = {}, window = {}, sinks = {} }}", dilation, pattern.window, pattern.sinks);
}

std::string one_line(const std::vector<std::string>& items) {
  return fmt::format("[{}]", fmt::join(items, ", "));
}

std::string one_a_line(const std::vector<std::string>& items) {
  return fmt::format("[\n  {},\n]", fmt::join(items, ",\n  "));
}

std::string heads_value(const std::vector<Pattern>& heads) {
  if (heads.size() == 1) return pattern_table(heads.front());
  std::vector<std::string> items;
  items.reserve(heads.size());
  for (const Pattern& pattern : heads) items.push_back(pattern_table(pattern));
  return one_line(items);
}

/// `list` writes the layers, where there is one pattern a layer or a head.
std::string plan_value(const model::PatternPlan& plan, std::string (&list)(const std::vector<std::string>&)) {
  const auto& layers = plan.layers();
  if (layers.size() == 1 && layers.front().size() == 1) return pattern_table(layers.front().front());
  std::vector<std::string> items;
  items.reserve(layers.size());
  for (const std::vector<Pattern>& heads : layers) items.push_back(heads_value(heads));
  return list(items);
}

}  // namespace

void read(const Value& value, model::PatternPlan& field, Any) {
  const auto* list = value.node->as_array();
  if (const auto* text = value.node->as_string()) {
    try {
      field = model::parse_plan(text->get());
    } catch (const Error& error) {
      fail("{}: {}: {}", value.where(), value.path, error.what());
    }
    return;
  }
  if (list == nullptr) {
    field = model::PatternPlan(read_pattern(value));
    return;
  }
  if (list->empty()) {
    fail("{}: {} is an empty list; give {}, or a list of them, one a layer", value.where(), value.path,
         pattern_forms);
  }
  std::vector<std::vector<Pattern>> layers;
  for (std::size_t i = 0; i < list->size(); ++i)
    layers.push_back(read_heads(value.element(i, *list->get(i))));
  field = model::PatternPlan(std::move(layers));
}

void read(const Value& value, std::vector<model::PatternPlan>& field, Any) {
  const auto* list = value.node->as_array();
  if (list == nullptr) fail_type(value, "a list of patterns, for example [\"dense\", \"16,0,4\"]");
  if (list->empty()) {
    fail("{}: {} is an empty list; give at least one pattern, or leave the key out", value.where(),
         value.path);
  }
  field.clear();
  for (std::size_t i = 0; i < list->size(); ++i) {
    read(value.element(i, *list->get(i)), field.emplace_back(), Any{});
  }
}

model::PatternPlan parse_plan(const std::string& text, const std::string& where) {
  const auto begin = text.find_first_not_of(" \t");
  const bool is_toml = begin != std::string::npos && (text[begin] == '[' || text[begin] == '{');
  try {
    if (!is_toml) return model::parse_plan(text);
    const toml::table table = toml::parse("pattern = " + text);
    if (table.size() != 1) fail("{}: {} is more than one value", where, text);
    model::PatternPlan plan;
    read(Value{table.get("pattern"), "pattern", where, text}, plan, Any{});
    return plan;
  } catch (const toml::parse_error& error) {
    fail("{}: {}: no list of patterns ({}); write it as in a job file, for example '[\"dense\", \"16,0,4\"]'",
         where, text, error.description());
  } catch (const Error& error) {
    const std::string message = error.what();
    if (message.starts_with(where)) throw;
    fail("{}: {}", where, message);
  }
}

std::string to_toml_value(const model::PatternPlan& plan) {
  return plan_value(plan, one_a_line);
}

std::string to_toml_value(const std::vector<model::PatternPlan>& plans) {
  std::vector<std::string> items;
  items.reserve(plans.size());
  for (const model::PatternPlan& plan : plans) items.push_back(plan_value(plan, one_line));
  return one_a_line(items);
}

}  // namespace ratplus::config
