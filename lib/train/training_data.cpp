#include "lib/train/training_data.h"

#include "parallel/mesh.h"

namespace ratplus::train {
namespace {

constexpr auto both_splits = {data::Split::train, data::Split::validation};

std::vector<data::Source> read_sources(const config::JobConfig& job) {
  std::vector<data::Source> sources;
  for (const config::DataSource& source : job.data.all_sources()) {
    sources.push_back({source.directory, source.weight, data::read_manifest(source.directory)});
    const data::Manifest& manifest = sources.back().manifest;
    config::validate_data(job, source.directory, manifest.vocab_size, manifest.tokens(data::Split::train),
                          manifest.tokens(data::Split::validation));
  }
  return sources;
}

void check_shards(const TrainingData& data) {
  for (const data::Source& source : data.sources) {
    for (const auto split : both_splits) {
      data::TokenStream(source.directory, source.manifest, split).check_all();
    }
  }
}

std::unique_ptr<data::WindowSamples> windows(const config::JobConfig& job, const TrainingData& data,
                                             data::Split split, data::Sampling sampling) {
  return std::make_unique<data::WindowSamples>(
      data.sources,
      data::WindowSamples::Settings{
          .split = split, .sampling = sampling, .window = job.data.window, .seed = job.job.seed});
}

}  // namespace

TrainingData open_data(const config::JobConfig& job, const parallel::World& world) {
  TrainingData data;
  world.agree([&] {
    config::validate_ranks(job, world.size());
    parallel::make_mesh(world.nodes(), world.rank(), job.parallel.shard, job.parallel.shard_group);
    data.sources = read_sources(job);
    data.manifest = data::combined_manifest(data.sources);
    if (world.root()) check_shards(data);
  });
  return data;
}

std::unique_ptr<data::Samples> training_samples(const config::JobConfig& job, const TrainingData& data) {
  return windows(job, data, data::Split::train, job.data.sampling);
}

HeldOut validation_samples(const config::JobConfig& job, const TrainingData& data) {
  auto samples = windows(job, data, data::Split::validation, data::Sampling::ordered);
  const std::int64_t count = samples->samples_before_repeat(job.log.validation_sequences);
  return {std::move(samples), count};
}

}  // namespace ratplus::train
