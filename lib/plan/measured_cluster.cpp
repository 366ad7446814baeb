#include "lib/plan/measured_cluster.h"

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "lib/plan/speeds.h"

namespace ratplus::plan {

Cluster measured_cluster(const nlohmann::ordered_json& check, Gpu& gpu) {
  if (!check.is_object() || !check.contains("cluster") || !check["cluster"].is_object())
    fail("holds no \"cluster\": it was not written by `ratplus check --json`");
  const auto& measured = check["cluster"];
  const auto number = [&](const char* key) {
    if (!measured.contains(key)) return 0.0;
    if (!measured[key].is_number()) fail("cluster.{} is no number", key);
    return measured[key].get<double>();
  };
  const auto title = measured.value("gpu_title", std::string());
  const Gpu* kind = gpu_of_title(title);
  if (kind == nullptr)
    fail("was measured on \"{}\", of which there are no figures to plan with; plan with --gpu", title);
  gpu = *kind;
  if (const double products = number("products_operations_per_second"); products > 0)
    gpu.pace = products / (gpu.bf16_rate * speeds::product_alone_share);
  if (const double copies = number("copies_bytes_per_second"); copies > 0)
    gpu.bandwidth = copies / speeds::copy_share;
  Cluster cluster{.gpu = &gpu,
                  .nodes = static_cast<int>(number("nodes")),
                  .gpus_per_node = static_cast<int>(number("gpus_per_node")),
                  .link = number("link_bytes_per_second"),
                  .network = number("network_bytes_per_second")};
  if (cluster.nodes < 1 || cluster.gpus_per_node < 1)
    fail("cluster.nodes and cluster.gpus_per_node are at least 1");
  return cluster;
}

}  // namespace ratplus::plan
