// One job planned on clusters of several sizes.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/plan/plan.h"

namespace ratplus::plan {

/// Throws Error for a cluster without nodes or GPUs, or of more GPUs (1,048,576) than a plan would take its time for.
void check_size(const Cluster& cluster);

struct SizedPlan {
  Cluster cluster;
  std::optional<Plan> plan;  ///< empty where the job cannot run there, or does not fit
  std::string problem = {};  ///< then, why
  /// Tokens a second and GPU, as a share of those of the first size in the list that the job runs on.
  double of_first = 0;
};

/// The job's plans on `cluster` with each of these numbers of nodes, in their order.
std::vector<SizedPlan> plan_sizes(const config::JobConfig& job, const Cluster& cluster,
                                  std::span<const int> nodes);

}  // namespace ratplus::plan
