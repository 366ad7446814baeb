// The shipped jobs of the paper's models run on the machines that their comments name.
#include <doctest/doctest.h>

#include "lib/plan/memory_plan.h"
#include "tests/plan/jobs.h"

namespace ratplus::plan {
namespace {

TEST_CASE("every job fits on the GPUs that its comment says, and on nodes of eight") {
  struct Row {
    const char* prefix;
    int fewest;  ///< GPUs of 80 GB
    int jobs;    ///< at least
  };
  for (const Row& row : {Row{"1b", 1, 5}, Row{"3b", 1, 5}, Row{"7b", 4, 5}, Row{"attention", 1, 4},
                         Row{"rat", 1, 4}, Row{"rnn", 1, 2}}) {
    int jobs = 0;
    for (const char* kind : {"pretrain", "adapt", "finetune"}) {
      const auto directory = std::filesystem::path(RATPLUS_SOURCE_DIR) / "configs" / kind;
      for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        const auto name = entry.path().stem().string();
        if (!name.starts_with(row.prefix)) continue;
        ++jobs;
        CAPTURE(entry.path().string());
        const auto job = config::load_job(entry.path(), {});
        for (const auto& cluster : {cluster_of("h100", 1, row.fewest), cluster_of("h100", 1, 8),
                                    cluster_of("a100", 4, 8), cluster_of("h200", 4, 8)}) {
          if (job.data.batch % cluster.ranks() != 0) continue;
          const auto plan = plan_memory(job, cluster);
          CAPTURE(plan.way_to_fit);
          CHECK(plan.fits());
        }
      }
    }
    CHECK(jobs >= row.jobs);
  }
}

}  // namespace
}  // namespace ratplus::plan
