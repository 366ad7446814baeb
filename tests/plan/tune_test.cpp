// The fastest settings of a job: that they fit and are the fastest, what stays free, and measured clusters.
#include "lib/plan/tune.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "lib/plan/measured_cluster.h"
#include "lib/plan/plan.h"
#include "lib/plan/speeds.h"
#include "tests/plan/jobs.h"

namespace ratplus::plan {
namespace {

double rate_of(const config::JobConfig& job, const Cluster& cluster) {
  const auto plan = plan_job(job, cluster);
  REQUIRE(plan.memory.fits());
  return plan.step.tokens_per_second() / cluster.ranks();
}

TEST_CASE("7b on four H200 is the fastest with the optimizer sharded, not the parameters") {
  const auto job = shipped_job("pretrain/7b", {"data.batch=16"});
  const auto cluster = cluster_of("h200", 1, 4);
  const auto found = tune(job, cluster, {});
  REQUIRE(found.size() > 3);
  CHECK(found.front().job.parallel.shard == parallel::Sharding::optimizer);
  CHECK(found.front().job.data.micro_batch == 2);
  CHECK(found.front().job.job.recompute == model::Recompute::none);
  CHECK(found.front().job.parallel.reduce == parallel::Reduce::f32);
  // As the plans of the settings themselves have it.
  CHECK(found.front().tokens_per_second == doctest::Approx(5957).epsilon(0.005));
  const auto own = with_settings(job, found.front().settings());
  CHECK(rate_of(own, cluster) == doctest::Approx(found.front().tokens_per_second));
  CHECK(rate_of(with_settings(own, {"parallel.shard=full"}), cluster) ==
        doctest::Approx(5499).epsilon(0.005));
  for (std::size_t i = 1; i < found.size(); ++i) {
    const bool rounds = found[i].job.parallel.reduce == parallel::Reduce::bf16;  // has to bring 2 %
    CHECK(found[i].tokens_per_second < (rounds ? 1.021 : 1.001) * found.front().tokens_per_second);
  }
  for (const auto& tuned : found) CHECK(tuned.bytes <= cluster.gpu->memory);
}

TEST_CASE("no setting of a small search is faster than the one that is found") {
  const auto job = shipped_job("pretrain/1b", {"data.batch=16"});
  const auto cluster = cluster_of("h100", 1, 2);
  const auto best = tune(job, cluster, {.micro_batch = true, .shard = true, .reduce = false}).front();
  int tried = 0;
  for (const char* shard : {"none", "optimizer", "full"}) {
    for (const int size : {1, 2, 4, 8}) {
      for (const char* recompute : {"none", "cheap", "block"}) {
        const auto other = with_settings(
            job, {std::string("parallel.shard=") + shard, "data.micro_batch=" + std::to_string(size),
                  std::string("job.recompute=") + recompute});
        const auto plan = plan_job(other, cluster);
        if (!plan.memory.fits()) continue;
        ++tried;
        CAPTURE(shard);
        CAPTURE(size);
        CAPTURE(recompute);
        CHECK(plan.step.tokens_per_second() / 2 <= best.tokens_per_second * 1.001);
      }
    }
  }
  CHECK(tried > 12);
}

TEST_CASE("bfloat16 between hosts is tried where shard groups lie within hosts, on several alone") {
  const auto job = shipped_job("pretrain/1b", {"data.batch=32", "data.micro_batch=1"});
  const Free free{.micro_batch = false, .shard = true, .reduce = true};
  int by_hosts = 0;
  for (const auto& tuned : tune(job, cluster_of("h100", 2, 8), free)) {
    const auto& p = tuned.job.parallel;
    if (p.reduce != parallel::Reduce::bf16_between_hosts) continue;
    ++by_hosts;
    CHECK((p.shard == parallel::Sharding::none || p.shard_group == parallel::ranks_of_a_node));
  }
  CHECK(by_hosts > 2);
  for (const auto& tuned : tune(job, cluster_of("h100", 1, 8), free))
    CHECK(tuned.job.parallel.reduce != parallel::Reduce::bf16_between_hosts);
  // Of a job that has it, the other groups are left out.
  const auto own = with_settings(job, {"parallel.shard=auto", "parallel.reduce=bf16_between_hosts"});
  const auto chosen = choose_settings(own, cluster_of("h100", 2, 8));
  CHECK(chosen.job.parallel.reduce == parallel::Reduce::bf16_between_hosts);
}

TEST_CASE("\"auto\" changes what it stands for, and nothing else") {
  const auto cluster = cluster_of("h100", 1, 8);
  const auto base = shipped_job("pretrain/7b", {"data.batch=64", "parallel.reduce=bf16"});
  const auto micro = with_settings(base, {"data.micro_batch=auto", "parallel.shard=full"});
  const auto chosen = choose_settings(micro, cluster);
  CHECK_FALSE(with_settings(micro, chosen.settings()).chooses());
  CHECK(chosen.job.parallel.shard == parallel::Sharding::full);
  CHECK(chosen.job.parallel.reduce == parallel::Reduce::bf16);
  CHECK(chosen.job.data.micro_batch > 1);
  const auto shard =
      with_settings(base, {"parallel.shard=auto", "data.micro_batch=1", "job.recompute=cheap"});
  const auto cut = choose_settings(shard, cluster);
  CHECK(cut.job.data.micro_batch == 1);
  CHECK(cut.job.job.recompute == model::Recompute::cheap);
  CHECK(cut.job.parallel.shard == parallel::Sharding::optimizer);  // 69.5 of 77 GiB
  const auto job = with_settings(shard, cut.settings());
  CHECK(rate_of(job, cluster) == doctest::Approx(cut.tokens_per_second));
}

TEST_CASE("a job that fits in no way says what is missing") {
  const auto job = shipped_job("pretrain/7b", {"data.batch=16", "data.sequence_length=65536"});
  CHECK_THROWS_AS(tune(job, cluster_of("a100-40gb", 1, 1), {}), Error);
}

TEST_CASE("a kind of GPU is known by the name that it has for itself") {
  CHECK(gpu_of_title("NVIDIA H100 80GB HBM3")->name == "h100");
  CHECK(gpu_of_title("NVIDIA H200")->name == "h200");
  CHECK(gpu_of_title("NVIDIA A100-SXM4-40GB")->name == "a100-40gb");
  CHECK(gpu_of_title("NVIDIA A100-SXM4-80GB")->name == "a100");
  CHECK(gpu_of_title("NVIDIA B200")->name == "b200");
  CHECK(gpu_of_title("CPU") == nullptr);
  CHECK(gpu_of_title("NVIDIA GeForce RTX 4090") == nullptr);
}

TEST_CASE("a cluster that was measured is planned with, at its own rates") {
  const auto& h100 = find_gpu("h100");
  const nlohmann::ordered_json as_expected = {
      {"cluster",
       {{"nodes", 2},
        {"gpus_per_node", 8},
        {"gpu_title", "NVIDIA H100 80GB HBM3"},
        {"products_operations_per_second", h100.bf16_rate * speeds::product_alone_share},
        {"copies_bytes_per_second", h100.bandwidth * speeds::copy_share},
        {"link_bytes_per_second", 270e9},
        {"network_bytes_per_second", 40e9}}}};
  const auto job = shipped_job("pretrain/1b", {"data.batch=128"});
  Gpu gpu;
  const auto cluster = measured_cluster(as_expected, gpu);
  CHECK(cluster.nodes == 2);
  CHECK(cluster.gpus_per_node == 8);
  CHECK(rate_of(job, cluster) == doctest::Approx(rate_of(job, cluster_of("h100", 2, 8))));
  auto slower = as_expected;
  slower["cluster"]["products_operations_per_second"] = 0.5 * h100.bf16_rate * speeds::product_alone_share;
  slower["cluster"]["network_bytes_per_second"] = 1e9;
  Gpu slow;
  const auto behind = measured_cluster(slower, slow);
  CHECK(behind.network_bandwidth() == 1e9);
  CHECK(rate_of(job, behind) < 0.6 * rate_of(job, cluster));
  auto cpu = as_expected;
  cpu["cluster"]["gpu_title"] = "CPU";
  CHECK_THROWS_AS(measured_cluster(cpu, gpu), Error);
  CHECK_THROWS_AS(measured_cluster({{"nodes", 1}}, gpu), Error);
}

}  // namespace
}  // namespace ratplus::plan
