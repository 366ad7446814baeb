// What a job trains and validates on: its datasets, and samples of them.
#pragma once

#include <memory>
#include <vector>

#include "data/dataset/sample_source.h"
#include "data/samples/samples.h"
#include "lib/config/job.h"
#include "parallel/world.h"

namespace ratplus::train {

struct TrainingData {
  std::vector<data::SampleSource> sources;
  data::Manifest manifest;  ///< of all sources together
};

/// The job's datasets, once job, ranks and data are known to fit each other and all shards to be there. Throws Error,
/// on all ranks alike; writes nothing.
TrainingData open_data(const config::JobConfig& job, const parallel::World& world);

/// The same for ranks that are not there yet, each on one of these nodes; by one process, which needs no MPI.
TrainingData check_data(const config::JobConfig& job, const std::vector<int>& nodes);

/// Throws Error where the job does not fit ranks on these nodes: batch, parallel.ranks, shard group.
void check_ranks(const config::JobConfig& job, const std::vector<int>& nodes);

/// The job with the number of steps that its epochs are; reads the manifests of its data. Throws as open_data does.
config::JobConfig complete_schedule(config::JobConfig job, const parallel::World& world);
config::JobConfig complete_schedule(config::JobConfig job);

/// What the steps are made of.
std::unique_ptr<data::Samples> training_samples(const config::JobConfig& job, const TrainingData& data);

/// The held-out part, in order.
std::unique_ptr<data::Samples> validation_samples(const config::JobConfig& job, const TrainingData& data);

}  // namespace ratplus::train
