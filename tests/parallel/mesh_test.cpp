#include "parallel/mesh.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "base/error.h"
#include "tests/support/messages.h"

using namespace ratplus;
using namespace ratplus::parallel;

TEST_CASE("every rank is in one group, and groups are of neighbours on a node") {
  const std::vector<int> nodes = {0, 1, 2, 0, 1, 2};  // spread by the launcher over three nodes in turn
  std::set<std::vector<int>> groups;
  for (int rank = 0; rank < 6; ++rank) {
    CAPTURE(rank);
    const Mesh mesh = make_mesh(nodes, rank, Sharding::full, ranks_of_a_node);
    CHECK(mesh.shards == 2);
    CHECK(mesh.replicas == 3);
    CHECK(mesh.ranks() == 6);
    CHECK(mesh.shard_ranks[static_cast<std::size_t>(mesh.shard)] == rank);
    CHECK(mesh.replica_ranks[static_cast<std::size_t>(mesh.replica)] == rank);
    for (const int other : mesh.shard_ranks) {
      CHECK(nodes[static_cast<std::size_t>(other)] == nodes[static_cast<std::size_t>(rank)]);
    }
    groups.insert(mesh.shard_ranks);
  }
  CHECK(groups == std::set<std::vector<int>>{{0, 3}, {1, 4}, {2, 5}});
}

TEST_CASE("a group may be any divisor of the ranks, all of them, or one rank where nothing is cut") {
  const std::vector<int> nodes = {0, 0, 0, 0, 1, 1, 1, 1};
  for (const int group : {1, 2, 4, 8}) {
    const Mesh mesh = make_mesh(nodes, 5, Sharding::optimizer, group);
    CHECK(mesh.shards == group);
    CHECK(mesh.replicas == 8 / group);
    CHECK(mesh.replica * group + mesh.shard == 5);
  }
  CHECK(make_mesh(nodes, 5, Sharding::full, all_ranks).shards == 8);
  CHECK(make_mesh(nodes, 5, Sharding::full, ranks_of_a_node).shard_ranks == std::vector{4, 5, 6, 7});
  const Mesh whole = make_mesh(nodes, 5, Sharding::none, ranks_of_a_node);
  CHECK(whole.shards == 1);
  CHECK(whole.replica_ranks.size() == 8);
}

TEST_CASE("groups that would not be equal are refused with the sizes that would do") {
  const std::vector<int> nodes = {0, 0, 0, 0, 1, 1};
  const auto uneven = test::message_of([&] { make_mesh(nodes, 0, Sharding::full, ranks_of_a_node); });
  CHECK(test::contains(uneven, "node 0 has 4 ranks and node 1 has 2"));
  CHECK(test::contains(uneven, "1, 2, 3, 6"));
  const auto indivisible = test::message_of([&] { make_mesh(nodes, 0, Sharding::full, 4); });
  CHECK(test::contains(indivisible, "parallel.shard_group = 4 cannot cut 6 ranks"));
  CHECK(test::contains(indivisible, "1, 2, 3, 6"));
  CHECK_NOTHROW(make_mesh(nodes, 0, Sharding::none, ranks_of_a_node));
}
