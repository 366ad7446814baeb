#include "lib/plan/plan_sizes.h"

#include <cstdint>

#include "base/error.h"
#include "base/units.h"
#include "lib/plan/tune.h"

namespace ratplus::plan {

void check_size(const Cluster& cluster) {
  constexpr int most_ranks = 1 << 20;
  if (cluster.nodes < 1 || cluster.gpus_per_node < 1) fail("--nodes and --gpus-per-node are at least 1");
  if (std::int64_t{cluster.nodes} * cluster.gpus_per_node > most_ranks) {
    fail("{} of {} are more than {} GPUs", counted(cluster.nodes, "node"),
         counted(cluster.gpus_per_node, "GPU"), most_ranks);
  }
}

std::vector<SizedPlan> plan_sizes(const config::JobConfig& job, const Cluster& cluster,
                                  std::span<const int> nodes) {
  std::vector<SizedPlan> result;
  double first = 0;  // tokens a second and GPU of the first size that the job runs on
  for (const int count : nodes) {
    SizedPlan sized{.cluster = cluster, .plan = {}};
    sized.cluster.nodes = count;
    try {
      const auto settled =
          job.chooses() ? with_settings(job, choose_settings(job, sized.cluster).settings()) : job;
      auto plan = plan_job(settled, sized.cluster);
      require_fit(plan.memory, settled, sized.cluster);
      const double rate = plan.step.tokens_per_second() / sized.cluster.ranks();
      if (first == 0) first = rate;
      sized.of_first = rate / first;
      sized.plan = std::move(plan);
    } catch (const Error& error) {
      sized.problem = error.what();
    }
    result.push_back(std::move(sized));
  }
  return result;
}

}  // namespace ratplus::plan
