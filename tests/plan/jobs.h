// Jobs and clusters that the tests of lib/plan share.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/config/job.h"
#include "lib/plan/cluster.h"

namespace ratplus::plan {

/// configs/<name>.toml.
inline config::JobConfig shipped_job(const std::string& name,
                                     const std::vector<std::string>& overrides = {}) {
  const auto file = std::filesystem::path(RATPLUS_SOURCE_DIR) / "configs" / (name + ".toml");
  return config::load_job(file, overrides);
}

inline Cluster cluster_of(const char* gpu, int nodes, int gpus_per_node) {
  return {.gpu = &find_gpu(gpu), .nodes = nodes, .gpus_per_node = gpus_per_node};
}

}  // namespace ratplus::plan
