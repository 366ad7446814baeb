#include "lib/check/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/median.h"
#include "base/units.h"
#include "lib/report/format.h"

namespace ratplus::check {
namespace {

using Json = nlohmann::ordered_json;

std::vector<double> told(const std::vector<RankReport>& ranks, Quantity quantity) {
  std::vector<double> values;
  for (const auto& rank : ranks) {
    if (const auto& value = rank.values[quantity]) values.push_back(*value);
  }
  return values;
}

std::string name_of(const RankReport& rank) {
  return fmt::format("rank {} on {}", rank.rank, rank.host);
}

/// "a, b and 3 more".
std::string first_few(const std::vector<std::string>& names) {
  constexpr std::size_t most = 4;
  if (names.size() <= most) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{} and {} more", fmt::join(names.begin(), names.begin() + most, ", "),
                     names.size() - most);
}

void judge_quantity(const std::vector<RankReport>& ranks, const QuantityInfo& info,
                    std::vector<Finding>& found) {
  auto values = told(ranks, info.quantity);
  if (values.empty()) return;
  const double middle = median(std::move(values));
  for (const auto& rank : ranks) {
    const auto& value = rank.values[info.quantity];
    if (!value) continue;
    const auto begin =
        fmt::format("{} of {}: {}", info.title, name_of(rank), format_value(*value, info.unit));
    switch (info.rule) {
      case Rule::below_median:
        if (*value < least_share_of_median * middle)
          found.push_back(
              {fmt::format("{}, {:.0f} % of the median {} (below {:.0f} %)", begin, 100 * *value / middle,
                           format_value(middle, info.unit), 100 * least_share_of_median)});
        break;
      case Rule::apart:
        if (std::abs(*value - middle) > most_seconds_apart)
          found.push_back(
              {fmt::format("{}, more than {} from the median {}", begin,
                           format_value(most_seconds_apart, info.unit), format_value(middle, info.unit))});
        break;
      case Rule::not_zero:
        if (*value > 0) found.push_back({fmt::format("{}, not 0", begin)});
        break;
      case Rule::none:
        break;
    }
  }
}

/// A program, driver or library that is not the same on all ranks: the hosts of each version, the most ranks first.
void judge_versions(const std::vector<RankReport>& ranks, std::vector<Finding>& found) {
  std::set<std::string> names;
  for (const auto& rank : ranks) {
    for (const auto& [name, version] : rank.versions) names.insert(name);
  }
  for (const auto& name : names) {
    std::map<std::string, std::pair<int, std::set<std::string>>> by_version;  // ranks, hosts
    for (const auto& rank : ranks) {
      const auto has = rank.versions.find(name);
      auto& entry = by_version[has == rank.versions.end() ? "none" : has->second];
      ++entry.first;
      entry.second.insert(rank.host);
    }
    if (by_version.size() < 2) continue;
    std::vector<std::pair<int, std::string>> parts;
    for (const auto& [version, entry] : by_version) {
      parts.emplace_back(-entry.first, fmt::format("{} on {}", version,
                                                   first_few({entry.second.begin(), entry.second.end()})));
    }
    std::ranges::sort(parts);
    std::vector<std::string> texts;
    for (const auto& part : parts) texts.push_back(part.second);
    found.push_back({fmt::format("version of {}: {}", name, fmt::join(texts, "; "))});
  }
}

/// One line for a problem that several ranks have.
void add_problems(const std::vector<RankReport>& ranks, std::vector<Finding>& found) {
  std::vector<std::string> texts;
  std::map<std::string, std::vector<std::string>> names;
  for (const auto& rank : ranks) {
    for (const auto& problem : rank.problems) {
      if (!names.contains(problem)) texts.push_back(problem);
      names[problem].push_back(name_of(rank));
    }
  }
  for (const auto& text : texts) {
    const bool all = names[text].size() == ranks.size();
    found.push_back({all ? text : fmt::format("{}: {}", first_few(names[text]), text)});
  }
}

}  // namespace

Json to_json(const RankReport& rank) {
  Json values = Json::object();
  for (const auto& info : quantities) {
    const auto& value = rank.values[info.quantity];
    const bool finite = value && std::isfinite(*value);
    if (finite) values[info.key] = *value;
    // JSON has no infinity.
    if (value && !finite) values[info.key] = "unlimited";
  }
  return {{"rank", rank.rank},
          {"node", rank.node},
          {"host", rank.host},
          {"device", rank.device},
          {"device_name", rank.device_name},
          {"values", std::move(values)},
          {"not_told", rank.not_told},
          {"versions", rank.versions},
          {"problems", rank.problems}};
}

RankReport parse_rank(const Json& json) {
  RankReport rank{.rank = json.at("rank"),
                  .node = json.at("node"),
                  .host = json.at("host"),
                  .device = json.at("device"),
                  .device_name = json.at("device_name"),
                  .values = {},
                  .not_told = json.at("not_told"),
                  .versions = json.at("versions"),
                  .problems = json.at("problems")};
  for (const auto& info : quantities) {
    const auto& values = json.at("values");
    if (!values.contains(info.key)) continue;
    const auto& value = values.at(info.key);
    rank.values[info.quantity] = value.is_string() ? HUGE_VAL : value.get<double>();
  }
  return rank;
}

std::vector<Finding> judge(const std::vector<RankReport>& ranks) {
  std::vector<Finding> found;
  for (const auto& info : quantities) judge_quantity(ranks, info, found);
  judge_versions(ranks, found);
  add_problems(ranks, found);
  return found;
}

std::string format_value(double value, Unit unit) {
  if (std::isinf(value)) return "unlimited";
  switch (unit) {
    case Unit::operations:
      return report::format_rate(value, "FLOP/s");
    case Unit::bytes_a_second:
      return report::format_rate(value, "B/s");
    case Unit::seconds:
      return report::format_duration(value);
    case Unit::bytes:
      return report::format_bytes(static_cast<std::int64_t>(value));
    case Unit::count:
      break;
  }
  return fmt::format("{:.0f}", value);
}

std::vector<std::vector<std::string>> table(const std::vector<RankReport>& ranks) {
  std::vector<std::vector<std::string>> rows = {{"measured", "least", "on", "median", "most", "not told"}};
  for (const auto& info : quantities) {
    auto values = told(ranks, info.quantity);
    std::set<std::string> reasons;
    std::size_t missing = 0;
    for (const auto& rank : ranks) {
      const auto reason = rank.not_told.find(info.key);
      if (reason == rank.not_told.end()) continue;
      reasons.insert(reason->second);
      ++missing;
    }
    if (values.empty() && missing == 0) continue;
    auto note = missing == 0 ? std::string() : fmt::format("{}", fmt::join(reasons, "; "));
    if (missing > 0 && missing < ranks.size()) note = fmt::format("{}: {}", counted(missing, "rank"), note);
    if (values.empty()) {
      rows.push_back({info.title, "-", "", "-", "-", note});
      continue;
    }
    const RankReport* least = nullptr;
    for (const auto& rank : ranks) {
      const auto& value = rank.values[info.quantity];
      if (value && (least == nullptr || *value < *least->values[info.quantity])) least = &rank;
    }
    const double most = *std::ranges::max_element(values);
    rows.push_back({info.title, format_value(*least->values[info.quantity], info.unit), name_of(*least),
                    format_value(median(std::move(values)), info.unit), format_value(most, info.unit), note});
  }
  return rows;
}

Json cluster_of(const std::vector<RankReport>& ranks) {
  std::set<int> nodes;
  std::set<std::string> devices;
  for (const auto& rank : ranks) {
    nodes.insert(rank.node);
    devices.insert(rank.device_name);
  }
  Json json = {{"nodes", nodes.size()},
               {"gpus_per_node", ranks.size() / nodes.size()},
               {"gpu_title", *devices.begin()}};
  const auto add = [&](const char* key, Quantity quantity) {
    auto values = told(ranks, quantity);
    if (!values.empty()) json[key] = median(std::move(values));
  };
  add("products_operations_per_second", Quantity::products);
  add("copies_bytes_per_second", Quantity::copies);
  add("link_bytes_per_second", Quantity::link);
  add("link_bytes_per_second", Quantity::group);
  add("network_bytes_per_second", Quantity::network);
  return json;
}

}  // namespace ratplus::check
