// Tune: the fastest settings of a job on a cluster, by their plans.
#pragma once

#include <string>
#include <vector>

#include "lib/config/job.h"
#include "lib/plan/cluster.h"

namespace ratplus::plan {

/// The keys that may change. What is not free stays as the job has it.
struct Free {
  bool micro_batch = true;  ///< data.micro_batch and job.recompute
  bool shard = true;        ///< parallel.shard, shard_group, keep_weights, prefetch
  bool reduce = true;       ///< parallel.reduce, which changes how sums are rounded
};

/// Settings that fit, and what they are planned to reach.
struct Tuned {
  config::JobConfig job;
  std::int64_t bytes = 0;          ///< of memory, a GPU
  double tokens_per_second = 0;    ///< a GPU
  double seconds = 0;              ///< a step
  double dense_share = 0;          ///< of peak, of the last update
  std::int64_t micro_batches = 0;  ///< a GPU and update

  /// "data.micro_batch=2", ... of all keys that tune() may change: what --set takes.
  std::vector<std::string> settings() const;
};

/// The settings that fit, the fastest first; gradients in bfloat16, everywhere or between hosts, count where they bring more than 2 %, and kept weights,
/// more prefetched blocks and wider groups where they bring more than 0.02 %. For each sharding the two largest micro-batches that fit are planned with each
/// recomputation that makes room for a larger one. Throws Error where the job cannot run on the cluster's ranks, or
/// nothing fits.
std::vector<Tuned> tune(const config::JobConfig& job, const Cluster& cluster, const Free& free);

/// The job with its "auto" settings chosen: the fastest. Throws as tune does.
Tuned choose_settings(const config::JobConfig& job, const Cluster& cluster);

/// The job with these settings, "section.key=value" each.
config::JobConfig with_settings(const config::JobConfig& job, const std::vector<std::string>& settings);

}  // namespace ratplus::plan
