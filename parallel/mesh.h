// Mesh: the ranks as replicas x shards. A model's parameters are cut over the shards of a group; each group holds one
// whole copy of them, and all groups hold the same.
#pragma once

#include <vector>

#include "parallel/sharding.h"

namespace ratplus::parallel {

/// The place of this rank. With 6 ranks in groups of 3:
///
///                 shard 0   shard 1   shard 2
///     replica 0   rank 0    rank 1    rank 2     gather weights and scatter gradients among themselves
///     replica 1   rank 3    rank 4    rank 5
///                    these hold the same part and sum it
struct Mesh {
  int replicas = 1;
  int shards = 1;
  int replica = 0;                 ///< this rank's group
  int shard = 0;                   ///< its part in the group
  std::vector<int> shard_ranks;    ///< ranks of the world with the same replica, by shard
  std::vector<int> replica_ranks;  ///< ranks of the world with the same shard, by replica
  /// The two levels of a sum over the replicas, with Reduce::bf16_between_hosts where they are on several hosts; else
  /// empty. With 4 replicas on two hosts, replica 0 sums with 1, then with 2:
  ///
  ///     host 0   replica 0   1     inside_ranks: of replica_ranks those on this rank's host
  ///     host 1   replica 2   3     between_ranks: of each host the one in this rank's place there
  std::vector<int> inside_ranks;
  std::vector<int> between_ranks;

  int ranks() const { return replicas * shards; }
  bool two_levels() const { return !between_ranks.empty(); }
};

/// The mesh of `rank`. nodes: the node of each rank. shard_group: ranks of a group, or all_ranks, or ranks_of_a_node;
/// with Sharding::none nothing is cut, and every rank is a group. Groups are made of neighbours: ranks of one node as
/// far as possible, whatever order the launcher has spread them in. Throws Error where groups would not be equal.
Mesh make_mesh(const std::vector<int>& nodes, int rank, Sharding sharding, int shard_group);
/// The same by a job's settings, with the levels of Settings::reduce. Throws Error also where a sum in two levels is asked
/// for over hosts with unequal numbers of ranks, or with shard groups that reach over several hosts.
Mesh make_mesh(const std::vector<int>& nodes, int rank, const Settings& settings);

}  // namespace ratplus::parallel
