// Jobs that do not fit, or cannot run: what is said, and that what is said is true.
#include <doctest/doctest.h>

#include "base/error.h"
#include "lib/plan/plan.h"
#include "tests/plan/jobs.h"
#include "tests/support/messages.h"

namespace ratplus::plan {
namespace {

template <typename F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("what does not fit names settings that do") {
  struct Case {
    const char* gpu;
    int nodes, gpus;
    std::vector<std::string> settings;  ///< of 7b
    std::string way;
    std::vector<std::string> changed;  ///< the way, as settings
  };
  const Case cases[] = {
      {"h100", 1, 8, {"parallel.shard=none"}, "parallel.shard = \"full\" fits", {"parallel.shard=full"}},
      {"a100-40gb",
       1,
       8,
       {},
       "data.micro_batch = 1 with job.recompute = \"cheap\" fits",
       {"job.recompute=cheap"}},
      {"h100", 1, 8, {"data.micro_batch=4"}, "data.micro_batch = 2", {"data.micro_batch=2"}},
      {"h100", 2, 2, {}, "parallel.shard_group = 0 fits", {"parallel.shard_group=0"}},
      {"a100-40gb",
       4,
       2,
       {},
       "parallel.shard_group = 0 with data.micro_batch = 1 with job.recompute = \"cheap\" fits",
       {"parallel.shard_group=0", "job.recompute=cheap"}},
  };
  for (const auto& c : cases) {
    CAPTURE(c.way);
    const auto cluster = cluster_of(c.gpu, c.nodes, c.gpus);
    const auto job = shipped_job("pretrain/7b", c.settings);
    const auto plan = plan_job(job, cluster);
    REQUIRE(!plan.memory.fits());
    CAPTURE(plan.memory.way_to_fit);
    CHECK(test::contains(plan.memory.way_to_fit, c.way));
    const auto message = message_of([&] { require_fit(plan.memory, job, cluster); });
    CAPTURE(message);
    CHECK(test::contains(message, "7b.toml: the job needs"));
    CHECK(test::contains(message, c.way));
    auto changed = c.settings;
    changed.insert(changed.end(), c.changed.begin(), c.changed.end());
    CHECK(plan_memory(shipped_job("pretrain/7b", changed), cluster).fits());
  }
}

TEST_CASE("what fits on no setting of these GPUs says how many would do") {
  const auto cluster = cluster_of("a100-40gb", 1, 2);
  const auto plan = plan_job(shipped_job("pretrain/7b"), cluster);
  CHECK(test::contains(plan.memory.way_to_fit, "no setting fits on these; 4 nodes"));
  const auto most = shipped_job("pretrain/7b", {"parallel.shard_group=0", "job.recompute=block"});
  CHECK(plan_memory(most, cluster_of("a100-40gb", 4, 2)).fits());
  CHECK(!plan_memory(most, cluster_of("a100-40gb", 2, 2)).fits());
  const auto few = plan_job(shipped_job("pretrain/7b", {"data.batch=4"}), cluster);
  CHECK(test::contains(few.memory.way_to_fit, "data.batch a multiple of 8 in the place of 4"));
  CHECK(!test::contains(plan.memory.way_to_fit, "data.batch"));
  // Sums between hosts take no groups that reach over hosts.
  const auto between = plan_job(shipped_job("pretrain/7b", {"parallel.reduce=bf16_between_hosts"}),
                                cluster_of("a100-40gb", 2, 1));
  CAPTURE(between.memory.way_to_fit);
  CHECK(test::contains(between.memory.way_to_fit, "no setting fits on these; "));
  CHECK(test::contains(between.memory.way_to_fit, "parallel.reduce = \"bf16\""));
  const auto endless = plan_job(shipped_job("pretrain/7b", {"data.sequence_length=4194304"}), cluster);
  CHECK(test::contains(endless.memory.way_to_fit, "no number of such GPUs holds it"));
}

TEST_CASE("what cannot run at all is refused as train refuses it") {
  const auto job = shipped_job("pretrain/1b");
  CHECK(test::contains(message_of([&] { plan_job(job, cluster_of("h100", 3, 8)); }), "data.batch = 512"));
  const auto odd = shipped_job("pretrain/1b", {"parallel.shard_group=3"});
  CHECK(test::contains(message_of([&] { plan_job(odd, cluster_of("h100", 1, 8)); }),
                       "parallel.shard_group = 3"));
  const auto sized = shipped_job("pretrain/1b", {"parallel.ranks=16"});
  CHECK(
      test::contains(message_of([&] { plan_job(sized, cluster_of("h100", 1, 8)); }), "parallel.ranks = 16"));
  const auto cpu = shipped_job("quickstart/pretrain");
  CHECK(test::contains(message_of([&] { plan_job(cpu, cluster_of("h100", 1, 1)); }), "job.device"));
  CHECK(test::contains(message_of([] { find_gpu("h1000"); }), "a100-40gb, a100, h100, h200, b200"));
  CHECK(&find_gpu("H100") == &find_gpu("h100"));
}

}  // namespace
}  // namespace ratplus::plan
