#include "lib/plan/modelled_rank.h"

#include <utility>

#include "lib/plan/speeds.h"

namespace ratplus::plan {

ModelledRank::ModelledRank(const session::SessionSettings& settings, const Cluster& cluster)
    : ops_(*cluster.gpu, settings.precision, settings.deterministic,
           cluster.ranks() > 1 ? speeds::slowest : 1, time_),
      arena_(ops_.device()) {
  const auto& parallel = settings.parallel;
  groups_.mesh = parallel::make_mesh(cluster.rank_nodes(), 0, parallel.shard, parallel.shard_group);
  auto shards = std::make_unique<ModelledCommunicator>(time_, cluster, groups_.mesh.shard_ranks);
  auto replicas = std::make_unique<ModelledCommunicator>(time_, cluster, groups_.mesh.replica_ranks);
  shards_ = shards.get();
  replicas_ = replicas.get();
  groups_.shards = std::move(shards);
  groups_.replicas = std::move(replicas);
  const auto sum = [](std::span<double>) {};  // nothing to tell them from the others'
  parts_ = std::make_unique<session::SessionParts>(settings, ops_, groups_, sum, world_.watchdog(), arena_);
}

}  // namespace ratplus::plan
