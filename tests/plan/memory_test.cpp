// The memory of a plan beside that of the program itself, on ranks that there are: that of rank 0, which no other exceeds,
// to the byte, in each part but the scratch, which is the backend's own.
#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "lib/plan/memory_plan.h"
#include "lib/session/session.h"
#include "lib/session/settings_of_job.h"
#include "tests/plan/jobs.h"
#include "tests/support/ranks.h"

namespace ratplus::plan {
namespace {

std::map<std::string, std::int64_t> by_name(const std::vector<Arena::Entry>& entries) {
  std::map<std::string, std::int64_t> result;
  for (const auto& entry : entries) {
    if (entry.category != "scratch") result[entry.category] += entry.bytes;
  }
  return result;
}

struct Job {
  std::string name;
  std::vector<std::string> settings;
};

/// RAT+, the RAT family, and shared keys.
std::vector<Job> small_jobs() {
  const std::vector<std::string> small = {"model.layers=4", "model.width=256", "model.head_dim=64",
                                          "data.sequence_length=128", "model.vocab_size=300"};
  auto shared = small;
  shared.emplace_back("model.kv_heads=2");
  return {{"quickstart/pretrain", {}},
          {"pretrain/rat-local-xl", small},
          {"pretrain/rnn-xl", small},
          {"pretrain/attention-local-xl", shared}};
}

TEST_CASE("a plan's memory is what a session takes") {
  for (const auto& small : small_jobs()) {
    for (const std::string shard : {"none", "optimizer", "full"}) {
      for (const std::string more : {"parallel.prefetch=2", "parallel.keep_weights=true",
                                     "parallel.reduce=bf16", "job.recompute=cheap", "job.recompute=block"}) {
        CAPTURE(shard);
        CAPTURE(more);
        // In f32, as on the CPU: only there the weights are their own masters.
        std::vector<std::string> settings = {"parallel.shard=" + shard, more, "job.precision=f32",
                                             "data.micro_batch=1", "parallel.shard_group=0"};
        settings.insert(settings.end(), small.settings.begin(), small.settings.end());
        CAPTURE(small.name);
        const auto job = shipped_job(small.name, settings);
        const session::Session session(session::session_settings(job), world());
        auto on_gpus = job;
        on_gpus.job.device = DeviceChoice::cuda;
        const auto plan = plan_memory(on_gpus, cluster_of("h100", 1, world().size()));
        const auto planned = by_name(plan.parts), taken = by_name(session.memory().plan());
        if (world().root()) CHECK(planned == taken);
        // The last ranks have what is left of each unit.
        for (const auto& entry : taken) {
          const auto& part = entry.first;
          const auto& bytes = entry.second;
          CAPTURE(part);
          REQUIRE(planned.contains(part));
          CHECK(bytes <= planned.at(part));
        }
      }
    }
  }
}

}  // namespace
}  // namespace ratplus::plan
