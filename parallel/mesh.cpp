#include "parallel/mesh.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/units.h"

namespace ratplus::parallel {
namespace {

std::vector<int> divisors(int n) {
  std::vector<int> found;
  for (int d = 1; d <= n; ++d) {
    if (n % d == 0) found.push_back(d);
  }
  return found;
}

/// Ranks of a node, which must be as many on each. Throws Error of `why`, how many two nodes have, and the `way_out`.
int equal_node_size(const std::vector<int>& nodes, const std::string& why, const std::string& way_out) {
  std::map<int, int> sizes;
  for (const int node : nodes) ++sizes[node];
  const int size = sizes.begin()->second;
  for (const auto& [node, other] : sizes) {
    if (other == size) continue;
    fail("{}, but node {} has {} and node {} has {}; start as many on each, or set {}", why,
         sizes.begin()->first, counted(size, "rank"), node, other, way_out);
  }
  return size;
}

int group_size(const std::vector<int>& nodes, Sharding sharding, int shard_group) {
  const int ranks = static_cast<int>(nodes.size());
  if (sharding == Sharding::none) return 1;
  if (shard_group == all_ranks) return ranks;
  if (shard_group == ranks_of_a_node) {
    return equal_node_size(
        nodes,
        fmt::format("parallel.shard_group = {} cuts the parameters over the ranks of a node",
                    ranks_of_a_node),
        fmt::format("parallel.shard_group = {} to cut over all ranks, or to one of {}", all_ranks,
                    fmt::join(divisors(ranks), ", ")));
  }
  if (ranks % shard_group != 0) {
    fail(
        "parallel.shard_group = {} cannot cut {} ranks into equal groups; use one of {}, {} for all ranks, "
        "or "
        "{} for the ranks of a node",
        shard_group, ranks, fmt::join(divisors(ranks), ", "), all_ranks, ranks_of_a_node);
  }
  return shard_group;
}

/// Throws Error where the ranks of a host are not whole shard groups, or hosts have unequal numbers of ranks.
void require_levels(const std::vector<int>& nodes, int shards) {
  const auto asked = fmt::format("parallel.reduce = \"{}\"", to_string(Reduce::bf16_between_hosts));
  const auto others =
      fmt::format("parallel.reduce to \"{}\" or \"{}\"", to_string(Reduce::f32), to_string(Reduce::bf16));
  const int size = equal_node_size(nodes, asked + " sums within hosts of as many ranks each", others);
  if (size % shards == 0) return;
  fail(
      "{} needs shard groups within hosts, but groups of {} reach over hosts of {}; set "
      "parallel.shard_group = {} for the ranks of a node, or {}",
      asked, counted(shards, "rank"), size, ranks_of_a_node, others);
}

}  // namespace

Mesh make_mesh(const std::vector<int>& nodes, int rank, Sharding sharding, int shard_group) {
  Mesh mesh;
  mesh.shards = group_size(nodes, sharding, shard_group);
  mesh.replicas = static_cast<int>(nodes.size()) / mesh.shards;
  std::vector<int> order(nodes.size());  // node by node
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return nodes[static_cast<std::size_t>(a)] < nodes[static_cast<std::size_t>(b)];
  });
  const auto place = static_cast<int>(std::find(order.begin(), order.end(), rank) - order.begin());
  mesh.replica = place / mesh.shards;
  mesh.shard = place % mesh.shards;
  const auto at = [&](int replica, int shard) {
    const int index = replica * mesh.shards + shard;
    return order[static_cast<std::size_t>(index)];
  };
  for (int shard = 0; shard < mesh.shards; ++shard) mesh.shard_ranks.push_back(at(mesh.replica, shard));
  for (int replica = 0; replica < mesh.replicas; ++replica) {
    mesh.replica_ranks.push_back(at(replica, mesh.shard));
  }
  return mesh;
}

Mesh make_mesh(const std::vector<int>& nodes, int rank, const Settings& settings) {
  Mesh mesh = make_mesh(nodes, rank, settings.shard, settings.shard_group);
  const auto hosts = std::set<int>(nodes.begin(), nodes.end()).size();
  if (settings.reduce != Reduce::bf16_between_hosts || hosts == 1) return mesh;
  require_levels(nodes, mesh.shards);
  const auto inside = mesh.replica_ranks.size() / hosts;  // they are in the order of the nodes
  const auto place = static_cast<std::size_t>(mesh.replica) % inside;
  const auto first = static_cast<std::size_t>(mesh.replica) - place;
  for (std::size_t i = 0; i < inside; ++i) mesh.inside_ranks.push_back(mesh.replica_ranks[first + i]);
  for (std::size_t host = 0; host < hosts; ++host)
    mesh.between_ranks.push_back(mesh.replica_ranks[host * inside + place]);
  return mesh;
}

}  // namespace ratplus::parallel
