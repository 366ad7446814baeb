#include "lib/plan/step_plan.h"

#include <doctest/doctest.h>

#include "lib/model/parameters.h"
#include "lib/plan/plan.h"
#include "lib/plan/speeds.h"
#include "tests/plan/jobs.h"

namespace ratplus::plan {
namespace {

double sum_of_parts(const StepPlan& step) {
  double sum = step.waiting + step.slowing;
  for (const auto& work : step.work) sum += work.seconds;
  return sum;
}

const Work& part(const StepPlan& step, Part which) {
  return step.work[static_cast<std::size_t>(which)];
}

/// Parameters of units that are cut, whole parts of them: what a full gathering moves.
double block_elements(const config::JobConfig& job) {
  double elements = 0;
  for (const auto& unit : model::unit_layouts(job.model)) elements += unit.resident ? 0 : double(unit.numel);
  return elements;
}

TEST_CASE("a step's time is that of its parts and of what communication adds") {
  for (const std::string shard : {"none", "optimizer", "full"}) {
    CAPTURE(shard);
    const auto job = shipped_job("pretrain/1b", {"data.batch=128", "parallel.shard=" + shard});
    const auto step = plan_step(job, cluster_of("h200", 2, 4));
    CHECK(sum_of_parts(step) == doctest::Approx(step.seconds));
    CHECK(step.updates[0].seconds + step.updates[1].seconds == doctest::Approx(step.seconds));
    CHECK(step.tokens == 128 * 4096);
    CHECK(step.micro_batches == 4);
  }
}

TEST_CASE("products do 6 operations a parameter and token") {
  const auto job = shipped_job("pretrain/1b", {"data.batch=16"});
  const auto step = plan_step(job, cluster_of("h100", 1, 1));
  const double parameters = double(model::parameter_count(job.model)) - 2048 * (2 * 24 + 1);  // norms
  CHECK(part(step, Part::products).operations == doctest::Approx(2 * 6 * parameters * 16 * 4096));
}

TEST_CASE("what is sent is what parallel/README.md says") {
  const int m = 3, ranks = 4;
  const auto sent = [&](const std::vector<std::string>& settings, int nodes) {
    auto all = settings;
    all.emplace_back("data.batch=12");
    all.emplace_back("data.micro_batch=1");
    all.emplace_back("job.recipe=plain");
    return plan_step(shipped_job("pretrain/1b", all), cluster_of("h200", nodes, ranks / nodes));
  };
  const auto job = shipped_job("pretrain/1b");
  const double blocks = block_elements(job);
  const double root = double(model::unit_layouts(job.model).front().numel);
  const double near = 1e-3;  // whole parts are a little more than the parameters
  const auto all_reduce = [](double elements, int n) { return 2 * 4 * elements * (n - 1) / n; };

  const auto none = sent({"parallel.shard=none"}, 1);
  CHECK(none.in_nodes.bytes == doctest::Approx(all_reduce(blocks + root, 4)).epsilon(near));
  CHECK(none.between_nodes.bytes == 0);

  const auto optimizer = sent({"parallel.shard=optimizer"}, 1);
  CHECK(optimizer.in_nodes.bytes == doctest::Approx((4 + 2) * (blocks + root) * 3 / 4).epsilon(near));

  const auto full = sent({"parallel.shard=full"}, 1);
  // The last blocks of a pass are still there when the backward begins, and the first when the next forward does.
  CHECK(full.in_nodes.bytes ==
        doctest::Approx((2.0 * m * 2 + 4.0 * m) * blocks * 3 / 4 + 6 * root * 3 / 4).epsilon(0.05));

  const auto kept = sent({"parallel.shard=full", "parallel.keep_weights=true"}, 1);
  CHECK(kept.in_nodes.bytes ==
        doctest::Approx((2 + 4.0 * m) * blocks * 3 / 4 + 6 * root * 3 / 4).epsilon(near));

  const auto nodes = sent({"parallel.shard=full", "parallel.keep_weights=true"}, 2);
  CHECK(nodes.in_nodes.bytes == doctest::Approx((2 + 4.0 * m) * blocks / 2 + 6 * root / 2).epsilon(near));
  CHECK(nodes.between_nodes.bytes == doctest::Approx(all_reduce((blocks + root) / 2, 2)).epsilon(near));

  const auto rounded = sent({"parallel.shard=full", "parallel.keep_weights=true", "parallel.reduce=bf16"}, 2);
  CHECK(rounded.between_nodes.bytes == doctest::Approx(all_reduce((blocks + root) / 2, 2) / 2).epsilon(near));

  // Float32 within hosts, half the bytes between them.
  const auto by_hosts =
      sent({"parallel.shard=full", "parallel.keep_weights=true", "parallel.reduce=bf16_between_hosts"}, 2);
  CHECK(by_hosts.in_nodes.bytes == doctest::Approx(nodes.in_nodes.bytes).epsilon(near));
  CHECK(by_hosts.between_nodes.bytes == doctest::Approx(rounded.between_nodes.bytes).epsilon(near));

  // Two replicas a host: each sums half within it, and gathers the rounded halves of the other.
  const auto flat = sent({"parallel.shard=none", "parallel.reduce=bf16_between_hosts"}, 2);
  CHECK(flat.in_nodes.bytes == doctest::Approx((4.0 + 2.0) * (blocks + root) / 2).epsilon(near));
  CHECK(flat.between_nodes.bytes == doctest::Approx(all_reduce((blocks + root) / 2, 2) / 2).epsilon(near));
}

TEST_CASE("of many micro-batches those in the middle are counted once") {
  for (const std::string reduce : {"f32", "bf16"}) {
    CAPTURE(reduce);
    const auto job = shipped_job("pretrain/1b", {"data.batch=176", "data.micro_batch=1",
                                                 "parallel.shard=full", "parallel.reduce=" + reduce});
    const auto cluster = cluster_of("h200", 2, 8);  // 11 micro-batches
    const auto all = plan_step(job, cluster, 100), few = plan_step(job, cluster);
    CHECK(few.seconds == doctest::Approx(all.seconds).epsilon(1e-6));
    CHECK(few.in_nodes.bytes == doctest::Approx(all.in_nodes.bytes).epsilon(1e-9));
    CHECK(few.between_nodes.bytes == doctest::Approx(all.between_nodes.bytes).epsilon(1e-9));
    CHECK(part(few, Part::products).seconds ==
          doctest::Approx(part(all, Part::products).seconds).epsilon(1e-9));
  }
}

TEST_CASE("communication that is fast costs nothing, and a slow network is waited for") {
  const auto job = shipped_job("pretrain/7b", {"data.batch=64"});
  auto cluster = cluster_of("h200", 2, 8);
  const auto expected = plan_step(job, cluster);
  cluster.link = cluster.network = 1e18;
  const auto fast = plan_step(job, cluster);
  CHECK((fast.waiting + fast.slowing) / fast.seconds < 0.01);  // latencies are left
  CHECK(fast.seconds < expected.seconds);
  cluster.link = 0;
  cluster.network = 1e9;
  const auto slow = plan_step(job, cluster);
  // Two all-reduces of an eighth of 7.6e9 gradients at 1 GB/s: 7.6 s.
  CHECK(slow.waiting > 4);
  CHECK(slow.between_nodes.bytes == doctest::Approx(expected.between_nodes.bytes));
}

TEST_CASE("a sparse update is faster than a dense one, and recomputation costs time") {
  const auto cluster = cluster_of("h100", 1, 8);
  const auto step = plan_step(shipped_job("pretrain/1b"), cluster);
  CHECK(step.updates[0].seconds < step.updates[1].seconds);
  double before = step.seconds;
  for (const std::string recompute : {"cheap", "block"}) {
    const auto again = plan_step(shipped_job("pretrain/1b", {"job.recompute=" + recompute}), cluster);
    CHECK(again.seconds > before);
    before = again.seconds;
  }
}

TEST_CASE("the whole job: steps, validations and checkpoints") {
  const auto cluster = cluster_of("h100", 1, 8);
  const auto plan = plan_job(shipped_job("pretrain/1b", {"checkpoint.keep_every=10000"}), cluster);
  CHECK(plan.parameters == 1'474'922'496);
  CHECK(plan.steps == 52453);
  CHECK(plan.validations == 53);  // each 1000 steps, and the last
  CHECK(plan.seconds == doctest::Approx(52453 * plan.step.seconds + 53 * plan.step.validation_seconds));
  CHECK(plan.gpu_hours(cluster) == doctest::Approx(plan.seconds / 450));
  CHECK(plan.checkpoint_bytes == 12 * plan.parameters);  // every parameter's size is a multiple of 64
  CHECK(plan.checkpoints == 2 + 1 + 5);
  CHECK(plan.export_bytes == 0);
  const auto once =
      plan_job(shipped_job("pretrain/1b", {"checkpoint.every=0", "checkpoint.export=bfloat16"}), cluster);
  CHECK(once.checkpoints == 1);
  const auto epochs = plan_job(shipped_job("finetune/1b"), cluster_of("h100", 1, 8));
  CHECK(epochs.steps == 0);
  CHECK(epochs.checkpoints == 2 + 1);
  CHECK(once.export_bytes == 2 * once.parameters);
}

TEST_CASE("a job whose steps follow from its data has no length yet") {
  const auto plan = plan_job(shipped_job("finetune/1b"), cluster_of("h100", 1, 8));
  CHECK(plan.steps == 0);
  CHECK(plan.seconds == 0);
  CHECK(plan.step.seconds > 0);
}

}  // namespace
}  // namespace ratplus::plan
