#include "lib/config/sources_toml.h"

#include <fmt/ranges.h>

#include <limits>

#include "base/error.h"
#include "lib/config/suggest.h"
#include "lib/config/toml_value.h"

namespace ratplus::config {
namespace {

constexpr const char* source_form = "a source ({ directory = \"data/code\", weight = 0.3 })";
constexpr RealRange above_zero{0, false, std::numeric_limits<double>::infinity(), false};

DataSource read_source(const Value& value) {
  const auto* table = value.node->as_table();
  if (table == nullptr) fail_type(value, source_form);
  const std::vector<std::string> names = {"directory", "weight"};
  DataSource source;
  for (auto&& [key, node] : *table) {
    Value field = value.field(key.str(), node);
    field.override_text.reset();  // of a list, the text of the whole is no value of a field
    if (key == "directory") {
      if (!node.is_string()) fail_type(value.field(key.str(), node), "a string");
      read(field, source.directory, Any{});
    } else if (key == "weight") {
      read(value.field(key.str(), node), source.weight, above_zero);
    } else {
      const std::string near = nearest(key.str(), names);
      fail("{}: unknown key {}{} Keys of a source: {}", value.where(), field.path,
           near.empty() ? "." : fmt::format("; did you mean {}?", near), fmt::join(names, ", "));
    }
  }
  if (source.directory.empty()) {
    fail("{}: {} has no directory; name a dataset made by `ratplus prepare`", value.where(), value.path);
  }
  return source;
}

}  // namespace

void read(const Value& value, std::vector<DataSource>& field, Any) {
  const auto* list = value.node->as_array();
  if (list == nullptr)
    fail_type(value, "a list of sources, for example [{ directory = \"data/code\", weight = 0.3 }]");
  if (list->empty())
    fail("{}: {} is an empty list; give at least one source, or data.directory", value.where(), value.path);
  field.clear();
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Value element = value.element(i, *list->get(i));
    field.push_back(read_source(element));
    for (std::size_t j = 0; j < i; ++j) {
      if (field[j].directory == field[i].directory) {
        fail("{}: {} names {} twice; give each directory once, with the sum of its weights", element.where(),
             value.path, field[i].directory);
      }
    }
  }
}

std::string to_toml_value(const std::vector<DataSource>& sources) {
  std::string items;
  for (const DataSource& source : sources) {
    items += fmt::format("  {{ directory = {}, weight = {} }},\n", to_toml_value(source.directory),
                         to_toml_value(source.weight));
  }
  return "[\n" + items + "]";
}

}  // namespace ratplus::config
