// Sparsity patterns in TOML.
//
//     { dilation = 16, window = 256, sinks = 4 }   a pattern; dilation = "none": only the window and the sinks
//     "16,256,4", "none,256,4", "dense"            the same, short
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

/// Patterns as tables. A list has one layer, or one plan, a line.
std::string to_toml_value(const model::PatternPlan& plan);
std::string to_toml_value(const std::vector<model::PatternPlan>& plans);

}  // namespace ratplus::config
