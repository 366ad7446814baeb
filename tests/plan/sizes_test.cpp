// One job on clusters of several sizes, and a plan as JSON.
#include "lib/plan/plan_sizes.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "lib/plan/plan_json.h"
#include "tests/plan/jobs.h"
#include "tests/support/messages.h"

using namespace ratplus;
using plan::cluster_of;
using plan::shipped_job;

TEST_CASE(
    "sizes: those on which a job cannot run are told with the reason, others beside the first that it runs "
    "on") {
  const auto job = shipped_job("pretrain/1b", {"data.micro_batch=1", "data.batch=512"});
  const std::vector<int> nodes{3, 1, 8};
  const auto sizes = plan_sizes(job, cluster_of("h100", 1, 8), nodes);
  REQUIRE(sizes.size() == 3);
  CHECK(!sizes[0].plan);  // 512 is no multiple of 24
  CHECK(test::contains(sizes[0].problem, "data.batch = 512"));
  for (std::size_t i = 0; i < 3; ++i) CHECK(sizes[i].cluster.nodes == nodes[i]);
  REQUIRE(sizes[1].plan);
  REQUIRE(sizes[2].plan);
  CHECK(sizes[1].problem.empty());
  CHECK(sizes[1].of_first == 1);
  const auto rate = [&](std::size_t i) {
    return sizes[i].plan->step.tokens_per_second() / sizes[i].cluster.ranks();
  };
  CHECK(sizes[2].of_first == doctest::Approx(rate(2) / rate(1)));
  CHECK(sizes[2].of_first < 1);

  const auto large = shipped_job("pretrain/7b", {"parallel.shard=none"});
  const auto without_room = plan_sizes(large, cluster_of("h100", 1, 8), std::vector<int>{1});
  CHECK(!without_room[0].plan);
  CHECK(test::contains(without_room[0].problem, "GiB of each GPU"));
}

TEST_CASE("sizes: clusters that cannot be, or are larger than any machine, are refused") {
  const auto refusal = [](int nodes, int gpus) {
    return test::message_of([&] { plan::check_size(cluster_of("h100", nodes, gpus)); });
  };
  CHECK(refusal(1, 1).empty());
  CHECK(refusal(1 << 17, 8).empty());
  CHECK(test::contains(refusal(0, 8), "at least 1"));
  CHECK(test::contains(refusal(1, 0), "at least 1"));
  CHECK(test::contains(refusal(1 << 18, 8), "more than 1048576 GPUs"));
  CHECK(test::contains(refusal(2'000'000'000, 2'000'000'000), "more than 1048576 GPUs"));
}

TEST_CASE("json: a plan's numbers under their names; of one that does not fit, the memory and the way out") {
  const auto cluster = cluster_of("h100", 1, 8);
  const auto plan = plan_job(shipped_job("pretrain/1b", {"data.micro_batch=1"}), cluster);
  const auto json = to_json(plan, cluster);
  CHECK(json["gpu"] == "h100");
  CHECK(json["nodes"] == 1);
  CHECK(json["fits"] == true);
  CHECK(json["parameters"] == plan.parameters);
  CHECK(json["memory_bytes"] == plan.memory.bytes);
  CHECK(json["updates"].size() == plan.step.updates.size());
  CHECK(json["step_seconds"] == plan.step.seconds);
  CHECK(json["gpu_hours"] == plan.gpu_hours(cluster));
  std::int64_t parts = 0;
  for (const auto& [category, bytes] : json["memory"].items()) parts += bytes.get<std::int64_t>();
  CHECK(parts == plan.memory.bytes);

  const auto large = plan_job(shipped_job("pretrain/7b", {"parallel.shard=none"}), cluster);
  const auto too_large = to_json(large, cluster);
  CHECK(too_large["fits"] == false);
  CHECK(too_large["way_to_fit"] == large.memory.way_to_fit);
  CHECK(!too_large.contains("step_seconds"));
}
