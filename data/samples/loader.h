// Loader: this rank's share of each step's batch, read ahead by a thread of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "data/samples/samples.h"

namespace ratplus::data {

/// How a step's global batch is cut. Global sample index of sequence j of micro-batch m of rank r in step n:
///     n batch + (m ranks + r) micro_batch + j.
struct BatchShape {
  std::int64_t batch = 1;            ///< sequences a step, over all ranks
  std::int64_t micro_batch = 1;      ///< sequences a rank computes at once
  std::int64_t sequence_length = 1;  ///< T, inputs a sequence
  int ranks = 1;
  int rank = 0;

  std::int64_t micro_batches() const { return batch / (micro_batch * ranks); }
};

/// One rank's share of one step.
struct StepBatch {
  std::int64_t step = -1;
  std::int64_t counted = 0;          ///< positions with a label, this rank
  std::vector<std::int32_t> inputs;  ///< [micro_batches, micro_batch, T]
  std::vector<std::int32_t> labels;  ///< same shape: the next token; negative where it does not count
};

/// How often a sample that cannot be read is tried again: network file systems fail for moments. The waits double.
struct Retries {
  int times = 4;
  std::chrono::milliseconds first_wait{500};
};

class Loader {
 public:
  /// Serves steps [first_step, last_step), up to `depth` of them read ahead. The thread owns the samples.
  Loader(std::unique_ptr<Samples> samples, BatchShape shape, std::int64_t first_step, std::int64_t last_step,
         int depth, Retries retries = {});
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next step's batch; valid until the following call. Rethrows what the thread met (Error naming the
  /// shard, once it was tried again in vain).
  const StepBatch& next();
  /// Seconds that next() has waited for the thread, all calls together.
  double wait_seconds() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::data
