// Times of whole training steps of a job on random tokens: no dataset is needed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/op_profiler.h"
#include "lib/config/job.h"
#include "parallel/timeline.h"
#include "parallel/world.h"

namespace ratplus::bench {

struct StepBenchSettings {
  config::JobConfig job;           ///< its model, patterns, micro_batch, sequence_length, device and sharding
  std::int64_t micro_batches = 4;  ///< a rank and step
  int warmup = 2;                  ///< steps before those that are timed
  int steps = 5;
};

struct UpdateTime {
  std::string pattern;
  double seconds = 0;  ///< median of the timed steps, update included
  /// Operations of one rank: 6 N a token for the parameters' products, 12 d a (query, key) pair and layer.
  double operations = 0;
};

/// Bytes that a rank sends in a step, by the way of plans: S (n - 1) / n of a gather or reduce-scatter of S bytes over n
/// ranks, twice that of an all-reduce.
struct SentBytes {
  double within_hosts = 0;   ///< in groups of ranks of one host
  double between_hosts = 0;  ///< in groups that reach over several
};

struct StepTimes {
  std::string device;  ///< its own name
  DType compute_type = DType::f32;
  int ranks = 1;
  std::int64_t parameters = 0;
  std::int64_t tokens = 0;  ///< a step, over all ranks
  std::vector<UpdateTime> updates;
  double seconds = 0;                              ///< a step: its updates together, median
  std::vector<Arena::Entry> memory;                ///< the plan
  std::int64_t memory_bytes = 0;                   ///< a rank
  std::int64_t memory_available = -1;              ///< a rank's device, before
  std::vector<OpProfile> profile;                  ///< of one more step, this rank's
  double profiled_seconds = 0;                     ///< what that step took
  std::vector<parallel::Timeline::Span> timeline;  ///< of one more step, this rank's
  double timeline_seconds = 0;                     ///< what that step took
  SentBytes sent;                                  ///< in that step, by this rank
  std::vector<double> losses;  ///< of each update of the last step, a position: random tokens, so near ln V
};

/// Throws Error as Session does. Called on all ranks of the world.
StepTimes time_steps(const StepBenchSettings& settings, const parallel::World& world);

}  // namespace ratplus::bench
