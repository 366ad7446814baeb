// Report: what all ranks measured and said of themselves, and what stands out in it.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "lib/check/quantities.h"

namespace ratplus::check {

/// Of one rank.
struct RankReport {
  int rank = 0;
  int node = 0;
  std::string host;
  std::string device;       ///< "cuda:0"
  std::string device_name;  ///< "NVIDIA H100 80GB HBM3", "CPU"
  Values values;
  /// Why a quantity was not told, by its key; absent where it has no meaning (links of a single rank).
  std::map<std::string, std::string> not_told;
  /// Program, driver and libraries by name.
  std::map<std::string, std::string> versions;
  /// Whatever fails by itself: "data.directory: no such directory".
  std::vector<std::string> problems;
};

nlohmann::ordered_json to_json(const RankReport& rank);
RankReport parse_rank(const nlohmann::ordered_json& json);

/// A reason not to start a long run.
struct Finding {
  std::string
      text;  ///< "products of rank 3 on node07: 310 TFLOP/s, 45 % of the median 690 TFLOP/s (below 80 %)"
};

/// Every rank's values against the rules of quantities.h, versions that differ, and problems, in this order.
std::vector<Finding> judge(const std::vector<RankReport>& ranks);

/// 690e12 as "690 TFLOP/s", by its unit.
std::string format_value(double value, Unit unit);

/// "the least, the median and the most of all ranks" of each quantity that any rank told, one row each, the head first:
/// quantity, least, its rank, median, most, not told.
std::vector<std::vector<std::string>> table(const std::vector<RankReport>& ranks);

/// What a plan reads (lib/plan/cluster.h): nodes, gpus_per_node, and medians over the ranks of what was told:
/// gpu_title, products_operations_per_second, copies_bytes_per_second, link_bytes_per_second (of the ranks of a host
/// together, where there are several), network_bytes_per_second.
nlohmann::ordered_json cluster_of(const std::vector<RankReport>& ranks);

}  // namespace ratplus::check
