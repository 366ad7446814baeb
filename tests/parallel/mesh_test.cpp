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

TEST_CASE("a sum in two levels is over the replicas of a host, then over one of each host") {
  const std::vector<int> nodes = {0, 1, 0, 1, 0, 1, 0, 1};
  const Settings settings = {.shard = Sharding::full, .shard_group = 2, .reduce = Reduce::bf16_between_hosts};
  const Mesh mesh =
      make_mesh(nodes, 4, settings);  // the third of host 0: the first shard of its second group
  CHECK(mesh.replica_ranks == std::vector{0, 4, 1, 5});
  CHECK(mesh.inside_ranks == std::vector{0, 4});
  CHECK(mesh.between_ranks == std::vector{4, 5});
  const Mesh one_a_host =
      make_mesh(nodes, 4, {.shard = Sharding::full, .reduce = Reduce::bf16_between_hosts});
  CHECK(one_a_host.inside_ranks == std::vector{4});
  CHECK(one_a_host.between_ranks == std::vector{4, 5});
  const Mesh flat = make_mesh(nodes, 4, {.shard = Sharding::full, .shard_group = 2, .reduce = Reduce::bf16});
  CHECK(!flat.two_levels());
  const std::vector<int> one_host(8, 0);
  CHECK(!make_mesh(one_host, 4, settings).two_levels());
}

TEST_CASE("a sum in two levels is refused where hosts are no level of the mesh") {
  const Settings none = {.reduce = Reduce::bf16_between_hosts};
  const auto uneven = test::message_of([&] { make_mesh({0, 0, 1}, 0, none); });
  CHECK(test::contains(uneven, "node 0 has 2 ranks and node 1 has 1"));
  CHECK(test::contains(uneven, "parallel.reduce = \"bf16_between_hosts\""));
  for (const int group : {all_ranks, 4}) {
    const Settings wide = {
        .shard = Sharding::full, .shard_group = group, .reduce = Reduce::bf16_between_hosts};
    const auto message = test::message_of([&] { make_mesh({0, 0, 1, 1}, 0, wide); });
    CHECK(test::contains(message, "groups of 4 ranks reach over hosts of 2"));
    CHECK(test::contains(message, "parallel.shard_group = -1"));
  }
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
