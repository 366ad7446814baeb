// Plan: what a job is expected to take on a cluster, before a GPU is asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/config/job.h"
#include "lib/plan/cluster.h"
#include "lib/plan/memory_plan.h"
#include "lib/plan/step_plan.h"

namespace ratplus::plan {

struct Plan {
  std::int64_t parameters = 0;
  MemoryPlan memory;
  StepPlan step;  ///< empty where the memory does not fit

  std::int64_t steps = 0;  ///< 0: not known without the data (schedule.epochs)
  double seconds = 0;      ///< to the end of the job: all steps and validations
  std::int64_t validations = 0;

  std::int64_t checkpoint_bytes = 0;  ///< of one
  /// Those that a run keeps at most, with the one that is being written; where steps are not known, without those of
  /// checkpoint.keep_every.
  std::int64_t checkpoints = 0;
  std::int64_t export_bytes = 0;      ///< of the last weights as safetensors; 0 without checkpoint.export
  std::vector<std::string> cautions;  ///< where the plan goes beyond what was measured

  /// Bytes of all checkpoints that exist at a time; the largest number of the type if it is more.
  std::int64_t all_checkpoint_bytes() const;
  double gpu_hours(const Cluster& cluster) const { return seconds / 3600 * cluster.ranks(); }
};

/// Throws Error where the job cannot run on the cluster's ranks: the batch does not divide, or the mesh; or where it is
/// to run on CPUs.
Plan plan_job(const config::JobConfig& job, const Cluster& cluster);

}  // namespace ratplus::plan
