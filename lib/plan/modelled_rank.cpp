#include "lib/plan/modelled_rank.h"

#include <utility>

#include "lib/plan/speeds.h"

namespace ratplus::plan {

ModelledRank::ModelledRank(const session::SessionSettings& settings, const Cluster& cluster)
    : ops_(*cluster.gpu, settings.precision, settings.deterministic,
           cluster.ranks() > 1 ? speeds::slowest : 1, time_),
      arena_(ops_.device()) {
  const auto& parallel = settings.parallel;
  const auto connect = [&](const std::vector<int>& ranks) {
    auto group = std::make_unique<ModelledCommunicator>(time_, cluster, ranks);
    sent_in_.push_back(group.get());
    return group;
  };
  const auto mesh = parallel::make_mesh(cluster.rank_nodes(), 0, parallel);
  groups_.shards = connect(mesh.shard_ranks);
  groups_.replicas = connect(mesh.two_levels() ? mesh.between_ranks : mesh.replica_ranks);
  if (mesh.inside_ranks.size() > 1) groups_.inside = connect(mesh.inside_ranks);
  groups_.mesh = mesh;
  const auto sum = [](std::span<double>) {};  // nothing to tell them from the others'
  parts_ = std::make_unique<session::SessionParts>(settings, ops_, groups_, sum, world_.watchdog(), arena_);
}

}  // namespace ratplus::plan
