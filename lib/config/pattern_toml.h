// Sparsity patterns in TOML.
//
//     { dilation = 16, window = 256, sinks = 4 }   a pattern; dilation = "none": only the window and the sinks
//     "16,256,4", "none,256,4", "dense"            the same, short
//     "hybrid(64,0,0 x 12, dense x 12)"            a name as tables print it, in the place of a list
//     [pattern, pattern, ...]                      one pattern a layer
//     [[pattern, ...], ...]                        a list in the place of a layer's pattern: one a head
#pragma once

#include <string>
#include <vector>

#include "lib/config/toml_reader.h"

namespace ratplus::config {

void read(const Value& value, model::PatternPlan& field, Any);
/// A list whose elements are each a whole plan.
void read(const Value& value, std::vector<model::PatternPlan>& field, Any);

/// A pattern on the command line: a name, or a list or table in TOML. Throws Error that begins with `where`.
model::PatternPlan parse_plan(const std::string& text, const std::string& where);

/// Patterns as tables. A list has one layer, or one plan, a line.
std::string to_toml_value(const model::PatternPlan& plan);
std::string to_toml_value(const std::vector<model::PatternPlan>& plans);

}  // namespace ratplus::config
