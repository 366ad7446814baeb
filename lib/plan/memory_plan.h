// MemoryPlan: what a job takes of each GPU's memory, known without a GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "lib/config/job.h"
#include "lib/plan/cluster.h"

namespace ratplus::plan {

struct MemoryPlan {
  std::vector<Arena::Entry> parts;  ///< as `ratplus train` shows them before its first step
  std::int64_t bytes = 0;           ///< a GPU, all together
  std::int64_t available = 0;       ///< of a GPU, to the plan
  std::string way_to_fit;           ///< settings that do fit; empty where these do

  bool fits() const { return bytes <= available; }
};

/// Counted by the objects that the job itself would make; all but the scratch of cuDNN, which is estimated. Throws Error
/// where the job cannot run on the cluster's ranks at all: the batch does not divide, or the mesh.
MemoryPlan plan_memory(const config::JobConfig& job, const Cluster& cluster);
/// Throws Error that says how much is missing and what fits, unless the plan does.
void require_fit(const MemoryPlan& plan, const config::JobConfig& job, const Cluster& cluster);

}  // namespace ratplus::plan
