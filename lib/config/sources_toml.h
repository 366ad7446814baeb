// Reading and writing data.sources as TOML.
#pragma once

#include <string>
#include <vector>

#include "lib/config/toml_reader.h"

namespace ratplus::config {

/// A list of tables, each with a directory and, if it is not 1, a weight.
void read(const Value& value, std::vector<DataSource>& field, Any);
std::string to_toml_value(const std::vector<DataSource>& sources);

}  // namespace ratplus::config
