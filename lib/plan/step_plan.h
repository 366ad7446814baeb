// StepPlan: how long a job's training step is expected to take, and what it does meanwhile.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/config/job.h"
#include "lib/plan/cluster.h"
#include "lib/plan/modelled_ops.h"

namespace ratplus::plan {

/// Bytes that one GPU sends in a step, and the seconds of sending, beside computation or not.
struct SentIn {
  double bytes = 0;
  double seconds = 0;
};

struct UpdatePlan {
  std::string pattern;
  double seconds = 0;     ///< its update included
  double operations = 0;  ///< of one GPU, as share of peak counts them (lib/model/operations.h)
};

struct StepPlan {
  std::int64_t micro_batches = 0;  ///< a GPU and update
  std::int64_t tokens = 0;         ///< a step, over all GPUs
  int replicas = 1;
  int shards = 1;
  std::vector<UpdatePlan> updates;
  double seconds = 0;
  std::array<Work, part_count> work{};  ///< of one GPU, by part
  SentIn in_nodes;                      ///< over links within a node
  SentIn between_nodes;                 ///< over the network
  /// Seconds that communication costs: those that computation waits, and those by which it is slower beside it.
  double waiting = 0;
  double slowing = 0;
  /// A validation of the held-out sequences under all of log.validation_patterns.
  double validation_seconds = 0;

  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
  double operations() const;
  /// Of the datasheet's rate of bfloat16 products: the last update, which is the dense one of a joint job; and all.
  double last_update_share(const Gpu& gpu) const;
  double share(const Gpu& gpu) const;
};

/// Goes through a step of the job as a rank of the cluster would: the program's own model, parameter store and optimizer,
/// on a backend and on collectives that take their time and do nothing else. Of more than `counted` micro-batches, those
/// in the middle are alike and are counted once. Throws Error as plan_memory does.
StepPlan plan_step(const config::JobConfig& job, const Cluster& cluster, std::int64_t counted = 4);

}  // namespace ratplus::plan
