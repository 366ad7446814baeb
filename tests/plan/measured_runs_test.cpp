// Plans beside the runs of docs/performance.md. A run that is measured is added as a line of the
// table below: `predicted` while no constant of lib/plan/speeds.h was set with it in view.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cmath>

#include "lib/model/parameters.h"
#include "lib/plan/plan.h"
#include "tests/plan/jobs.h"

namespace ratplus::plan {
namespace {

/// What a run is to the constants of lib/plan/speeds.h.
enum class Role {
  fitted,     ///< they were set by it, or by others of its model while it was known
  predicted,  ///< it had no part in them
};

/// One run of `ratplus bench step`, or of `ratplus train`. 0: was not told.
struct MeasuredRun {
  Role role;
  const char* gpu;
  int nodes, gpus_per_node;
  const char* config;
  int micro_batches;  ///< a GPU and update
  std::vector<std::string> settings;
  double tokens_per_second;  ///< a GPU, both updates
  double dense_share;        ///< of peak, of the last update, in percent
  double memory;             ///< GiB a GPU, as it was then
  bool in_place = false;     ///< sums of gradients formed in their place already (sums_beside)
};

using enum Role;

/// Sequences of so many tokens, one at a time.
std::vector<std::string> long_sequences(int tokens, const char* order, const char* recompute = "none") {
  return {"data.micro_batch=1", fmt::format("data.sequence_length={}", tokens), order,
          fmt::format("job.recompute={}", recompute)};
}

const MeasuredRun runs[] = {
    // "One GPU"
    {fitted, "h100", 1, 1, "pretrain/1b", 4, {"data.micro_batch=2"}, 27200, 51.0, 44.5},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, {}, 28200, 52.9, 64.1},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, {"job.deterministic=false"}, 28300, 53.4, 62.4},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, {"job.recompute=cheap"}, 26900, 50.8, 49.7},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, {"job.recompute=block"}, 22600, 42.5, 32.5},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, {"model.vocab_size=2048"}, 28700, 0, 0},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, {"data.micro_batch=2"}, 26503, 0, 0},  // "Against PyTorch"
    // "Two GPUs"
    {fitted, "h200", 1, 1, "pretrain/1b", 4, {"parallel.shard=none"}, 28548, 53.5, 64.1},
    {fitted, "h200", 1, 2, "pretrain/1b", 4, {"parallel.shard=optimizer"}, 28137, 52.8, 58.6},
    {fitted, "h200", 1, 2, "pretrain/1b", 4, {"parallel.shard=full"}, 26959, 50.7, 52.9},
    {fitted,
     "h200",
     1,
     2,
     "pretrain/1b",
     4,
     {"parallel.shard=full", "parallel.keep_weights=true"},
     27379,
     51.5,
     55.3},
    {fitted,
     "h200",
     1,
     2,
     "pretrain/1b",
     4,
     {"parallel.shard=full", "parallel.reduce=bf16"},
     26719,
     50.2,
     52.8},
    {predicted,
     "h200",
     1,
     2,
     "pretrain/3b",
     2,
     {"parallel.shard=full", "data.micro_batch=4"},
     15753,
     52.6,
     80.7},
    {predicted, "h200", 1, 2, "pretrain/7b", 2, {"data.micro_batch=2"}, 5594, 53.0, 119.6},
    {predicted, "h200", 1, 2, "pretrain/7b", 2, {}, 5109, 48.7, 94.0},
    // "Four GPUs"
    {predicted, "h200", 1, 4, "pretrain/7b", 2, {"data.micro_batch=2"}, 5707, 0, 0},
    {predicted, "h200", 1, 4, "pretrain/7b", 2, {"data.micro_batch=3"}, 5878, 0, 0},
    {predicted,
     "h200",
     1,
     4,
     "pretrain/7b",
     2,
     {"data.micro_batch=2", "parallel.shard=optimizer"},
     5960,
     0,
     115.5,
     true},
    {predicted, "h200", 1, 4, "pretrain/1b", 4, {"parallel.shard=optimizer"}, 28370, 0, 0},
    {predicted, "h200", 1, 4, "pretrain/1b", 4, {"parallel.shard=full"}, 27196, 0, 0},
    {predicted, "h200", 1, 1, "pretrain/1b", 4, {"parallel.shard=none"}, 28611, 0, 0},
    // "Attention in float32"
    {fitted, "h200", 1, 1, "reproduce/small", 1, {"job.precision=f32"}, 68500, 0, 0},
    // "Long sequences"
    {fitted, "h100", 1, 1, "pretrain/1b", 4, long_sequences(16384, "job.deterministic=false"), 23135, 0, 0},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, long_sequences(16384, "job.deterministic=true"), 22293, 0, 0},
    {predicted, "h100", 1, 1, "pretrain/1b", 4, long_sequences(32768, "job.deterministic=false", "cheap"),
     18276, 0, 0},
    {fitted, "h100", 1, 1, "pretrain/1b", 4, long_sequences(65536, "job.deterministic=false", "block"), 10858,
     0, 0},
};

/// The job as that run had it: its batch is what its micro-batches make.
config::JobConfig job_of(const MeasuredRun& run) {
  const auto load = [&](std::int64_t batch) {
    auto settings = run.settings;
    settings.push_back(fmt::format("data.batch={}", batch));
    return shipped_job(run.config, settings);
  };
  const auto micro_batch = shipped_job(run.config, run.settings).data.micro_batch;
  return load(micro_batch * run.micro_batches * run.nodes * run.gpus_per_node);
}

/// GiB that these runs took more than the program does now: each gradient that is kept whole (all of them, or with `full`
/// the embedding's) had beside it the part of its sum, which now forms in its place there.
double sums_beside(const config::JobConfig& job, int ranks) {
  if (ranks == 1) return 0;
  double elements = 0;
  for (const auto& unit : model::unit_layouts(job.model)) {
    if (job.parallel.shard == parallel::Sharding::full && !unit.resident) continue;
    elements += static_cast<double>(unit.numel) / ranks;
  }
  return 4 * elements / (1 << 30);
}

/// Checks the plans of all runs of this role: rates and shares of peak within `tolerance` of what was measured, memory
/// within 0.1 GiB.
void check_plans(Role role, double tolerance) {
  int checked = 0;
  for (const auto& run : runs) {
    if (run.role != role) continue;
    ++checked;
    const auto job = job_of(run);
    const auto cluster = cluster_of(run.gpu, run.nodes, run.gpus_per_node);
    const auto plan = plan_job(job, cluster);
    const double rate = plan.step.tokens_per_second() / cluster.ranks();
    const double share = plan.step.last_update_share(*cluster.gpu) * 100;
    const double memory = static_cast<double>(plan.memory.bytes) / (1 << 30);
    const double measured =
        run.memory - (run.memory > 0 && !run.in_place ? sums_beside(job, cluster.ranks()) : 0);
    std::string settings;
    for (const auto& setting : run.settings) settings += " " + setting;
    const auto line = fmt::format(
        "{} x {}, {}{}: {:.0f} tokens/s a GPU, measured {:.0f} ({:+.1f} %); dense update {:.1f} % of peak, "
        "measured {:.1f}; {:.1f} GiB, measured {:.1f}, now {:.1f}",
        cluster.ranks(), run.gpu, run.config, settings, rate, run.tokens_per_second,
        (rate / run.tokens_per_second - 1) * 100, share, run.dense_share, memory, run.memory, measured);
    CAPTURE(line);
    MESSAGE(line);
    CHECK(plan.memory.fits());
    CHECK(std::abs(rate / run.tokens_per_second - 1) < tolerance);
    if (run.dense_share > 0) CHECK(std::abs(share / run.dense_share - 1) < tolerance);
    if (run.memory > 0) CHECK(std::abs(memory - measured) < 0.1);
  }
  CHECK(checked >= 3);
}

TEST_CASE(
    "plans of the runs that the constants were fitted to are within 5 %, and their memory is the program's") {
  check_plans(Role::fitted, 0.05);
}

TEST_CASE("plans of runs that the constants were not fitted to foretell them within 5 %") {
  check_plans(Role::predicted, 0.05);
}

/// "Where a step at micro-batch 4 goes": the shares of the parts, and the rate of the products.
TEST_CASE("the parts of a step are those of the profile") {
  const auto job = shipped_job("pretrain/1b", {"data.batch=16"});
  const auto step = plan_step(job, cluster_of("h100", 1, 1));
  const auto share = [&](Part part) {
    return step.work[static_cast<std::size_t>(part)].seconds / step.seconds * 100;
  };
  CHECK(share(Part::products) == doctest::Approx(71).epsilon(0.05));
  CHECK(share(Part::dense_attention) == doctest::Approx(10.6).epsilon(0.05));
  CHECK(share(Part::norms) == doctest::Approx(5.4).epsilon(0.15));
  CHECK(share(Part::recurrence) == doctest::Approx(4.1).epsilon(0.1));
  CHECK(share(Part::gelu) == doctest::Approx(3.7).epsilon(0.1));
  CHECK(share(Part::pattern_attention) == doctest::Approx(1.7).epsilon(0.1));
  CHECK(share(Part::gate) == doctest::Approx(1.5).epsilon(0.1));
  CHECK(share(Part::update) == doctest::Approx(1.4).epsilon(0.1));
}

}  // namespace
}  // namespace ratplus::plan
