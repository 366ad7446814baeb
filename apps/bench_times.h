// Tables and JSON of operations' times beside their floors, for the commands of bench.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lib/bench/ops_bench.h"

namespace ratplus::apps {

using Rows = std::vector<std::vector<std::string>>;

/// "-" for what an operation does nothing of.
std::string rate_cell(double per_second, const char* unit);
void print_ceilings(const bench::Ceilings& ceilings);
/// The head of a table of operations.
std::vector<std::string> times_head();
std::vector<std::string> times_row(const bench::OpTime& time, const bench::Ceilings& ceilings);

nlohmann::ordered_json json_of(const bench::Ceilings& ceilings);
nlohmann::ordered_json json_of(const std::vector<bench::OpTime>& times, const bench::Ceilings& ceilings);

}  // namespace ratplus::apps
