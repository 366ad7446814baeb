// Filters, methods, tests and functions of templates by their names; docs/serving.md lists them.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "lib/serve/jinja_values.h"

namespace ratplus::serve::jinja {

/// The values of a call's arguments.
struct Arguments {
  std::vector<Value> values;
  std::map<std::string, Value> named;

  const Json* at(std::size_t i, const char* name = "") const {
    if (i < values.size()) return values[i].get();
    const auto found = named.find(name);
    return found == named.end() ? nullptr : found->second.get();
  }
  std::string text(std::size_t i, const char* otherwise) const {
    const auto* x = at(i);
    if (x == nullptr) return otherwise;
    if (!x->is_string()) fail("a text is needed, and there is a value of type {}", type_of(*x));
    return x->get<std::string>();
  }
};

/// X | filter(arguments), or X.method(arguments).
using Operation = Value (*)(const Value& x, const Arguments& arguments);

const std::map<std::string, Operation>& filters();
const std::map<std::string, Operation>& methods();
const std::map<std::string, bool (*)(const Json&)>& tests();
const std::map<std::string, Value (*)(const Arguments&)>& functions();

}  // namespace ratplus::serve::jinja
