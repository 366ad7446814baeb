#include <doctest/doctest.h>

#include <numeric>

#include "kernels/buffer.h"
#include "lib/plan/modelled_communicator.h"
#include "lib/plan/speeds.h"
#include "tests/plan/jobs.h"

namespace ratplus::plan {
namespace {

constexpr std::int64_t elements = 8 << 20;  // 32 MiB of f32
constexpr double bytes = 4.0 * elements;

std::vector<int> ranks_from_0(int count) {
  std::vector<int> ranks(static_cast<std::size_t>(count));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

/// Tensors that nobody touches.
Tensor tensor(std::int64_t numel) {
  static Arena arena({DeviceKind::cuda, 0});
  return arena.allocate(DType::f32, {numel});
}

Cluster with_speeds(int nodes, int gpus, double link, double network) {
  auto cluster = cluster_of("h100", nodes, gpus);
  cluster.link = link;
  cluster.network = network;
  return cluster;
}

TEST_CASE("within a node: rings at the speed of the links") {
  ModelledTime time;
  ModelledCommunicator group(time, with_speeds(1, 4, 100e9, 1e9), ranks_from_0(4));
  CHECK(!group.leaves_node());
  group.all_gather(tensor(elements), tensor(elements / 4), "").wait();
  const double part = bytes * 3 / 4 / 100e9 + 3 * speeds::link_latency;
  CHECK(time.now() == doctest::Approx(part));
  CHECK(group.traffic().bytes == doctest::Approx(bytes * 3 / 4));
  group.reduce_scatter(tensor(elements / 4), tensor(elements), "").wait();
  CHECK(time.now() == doctest::Approx(2 * part));
  group.all_reduce(tensor(elements), "").wait();
  CHECK(time.now() == doctest::Approx(4 * part));
}

TEST_CASE("between nodes: a group has the network of its ranks on a node") {
  const auto cluster = with_speeds(4, 8, 300e9, 20e9);
  ModelledTime time;
  ModelledCommunicator one_a_node(time, cluster, {0, 8, 16, 24});
  CHECK(one_a_node.leaves_node());
  one_a_node.all_gather(tensor(elements), tensor(elements / 4), "").wait();
  CHECK(time.now() == doctest::Approx(bytes * 3 / 4 / 20e9 + 3 * speeds::network_latency));

  ModelledTime all_timeline;
  ModelledCommunicator all(all_timeline, cluster, ranks_from_0(32));
  all.all_gather(tensor(elements), tensor(elements / 32), "").wait();
  CHECK(all_timeline.now() == doctest::Approx(bytes * 31 / 32 / 160e9 + 31 * speeds::network_latency));
}

TEST_CASE("a small sum over many ranks goes by a tree") {
  const auto cluster = with_speeds(512, 1, 300e9, 20e9);
  ModelledTime time;
  ModelledCommunicator group(time, cluster, ranks_from_0(512));
  group.all_reduce(tensor(1024), "").wait();
  CHECK(time.now() == doctest::Approx(2 * 4096 / 20e9 + 18 * speeds::network_latency));
}

TEST_CASE("a sum over groups begins when the group's own is done, without the computation's waiting") {
  const auto cluster = with_speeds(2, 2, 100e9, 10e9);
  ModelledTime time;
  ModelledCommunicator shards(time, cluster, {0, 1}), replicas(time, cluster, {0, 2});
  auto scattered = shards.reduce_scatter(tensor(elements / 2), tensor(elements), "");
  auto summed = replicas.all_reduce_after(std::move(scattered), tensor(elements / 2), "");
  CHECK(time.now() == 0);
  summed.wait();
  const double scatter = bytes / 2 / 100e9 + speeds::link_latency;
  const double sum = bytes / 2 / 10e9 + 2 * speeds::network_latency;
  CHECK(time.now() == doctest::Approx(scatter + sum));
}

}  // namespace
}  // namespace ratplus::plan
