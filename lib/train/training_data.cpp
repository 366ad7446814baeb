#include "lib/train/training_data.h"

#include "base/error.h"
#include "data/samples/supervised_samples.h"
#include "lib/config/keys.h"
#include "parallel/mesh.h"

namespace ratplus::train {
namespace {

constexpr auto both_splits = {data::Split::train, data::Split::validation};

bool is_supervised(const config::JobConfig& job) {
  return job.job.kind == config::Kind::finetune;
}

/// A dataset of samples with labels is for fine-tuning, and nothing else is.
void check_kind(const config::JobConfig& job, const std::string& directory, const data::Manifest& manifest) {
  const std::int64_t length = manifest.sample_length;
  if (!is_supervised(job) && length > 0) {
    fail(
        "{}: {} holds samples with labels, which are for job.kind = \"finetune\", not \"{}\"; give a dataset "
        "made by "
        "`ratplus prepare`",
        job.source, directory, to_string(job.job.kind));
  }
  if (is_supervised(job) && length == 0) {
    fail(
        "{}: {} holds a stream of tokens, but job.kind = \"finetune\" takes samples with labels; make them "
        "with "
        "`ratplus samples`",
        job.source, directory);
  }
  if (is_supervised(job) && length != job.data.sequence_length) {
    fail("{}: data.sequence_length = {}, but {} has samples of {} inputs; set data.sequence_length = {}",
         job.source, job.data.sequence_length, directory, length, length);
  }
}

std::vector<data::SampleSource> read_sources(const config::JobConfig& job) {
  std::vector<data::SampleSource> sources;
  for (const config::DataSource& source : job.data.all_sources()) {
    sources.push_back({source.directory, source.weight, data::read_manifest(source.directory)});
    const data::Manifest& manifest = sources.back().manifest;
    check_kind(job, source.directory, manifest);
    const std::int64_t labels = is_supervised(job) ? 1 : 0;  // of samples, each holds its last label, too
    config::validate_data(job, source.directory, manifest.vocab_size,
                          manifest.tokens(data::Split::train) + labels,
                          manifest.tokens(data::Split::validation) + labels);
  }
  return sources;
}

void check_shards(const TrainingData& data) {
  for (const data::SampleSource& source : data.sources) {
    if (source.manifest.sample_length > 0) {
      data::SupervisedSamples::check_all(source);
      continue;
    }
    for (const auto split : both_splits) {
      data::TokenStream(source.directory, source.manifest, split).check_all();
    }
  }
}

std::unique_ptr<data::Samples> samples_of(const config::JobConfig& job, const TrainingData& data,
                                          data::Split split, data::Sampling sampling) {
  const data::StreamSamples::Settings settings{.split = split,
                                               .sampling = sampling,
                                               .sequence_length = job.data.sequence_length,
                                               .seed = job.job.seed};
  if (is_supervised(job)) return std::make_unique<data::SupervisedSamples>(data.sources, settings);
  return std::make_unique<data::StreamSamples>(data.sources, settings);
}

/// Of one pass.
std::int64_t training_samples_of(const data::Manifest& manifest, std::int64_t sequence_length) {
  if (manifest.sample_length > 0) return manifest.documents(data::Split::train);
  return (manifest.tokens(data::Split::train) - 1) / sequence_length;
}

/// What the manifests say, once job, ranks and data are known to fit each other.
TrainingData read_data(const config::JobConfig& job, const std::vector<int>& nodes) {
  check_ranks(job, nodes);
  TrainingData data;
  data.sources = read_sources(job);
  data.manifest = data::combined_manifest(data.sources);
  return data;
}

}  // namespace

TrainingData open_data(const config::JobConfig& job, const parallel::World& world) {
  TrainingData data;
  world.agree([&] {
    data = read_data(job, world.nodes());
    if (world.root()) check_shards(data);
  });
  return data;
}

TrainingData check_data(const config::JobConfig& job, const std::vector<int>& nodes) {
  TrainingData data = read_data(job, nodes);
  check_shards(data);
  return data;
}

void check_ranks(const config::JobConfig& job, const std::vector<int>& nodes) {
  config::validate_ranks(job, static_cast<int>(nodes.size()));
  parallel::make_mesh(nodes, 0, job.parallel);
}

config::JobConfig complete_schedule(config::JobConfig job, const parallel::World& world) {
  world.agree([&] { job = complete_schedule(std::move(job)); });
  return job;
}

config::JobConfig complete_schedule(config::JobConfig job) {
  if (job.schedule.epochs == 0) return job;
  std::int64_t samples = 0;
  for (const data::SampleSource& source : read_sources(job))
    samples += training_samples_of(source.manifest, job.data.sequence_length);
  const double tokens = static_cast<double>(job.schedule.epochs) * static_cast<double>(samples) *
                        static_cast<double>(job.data.sequence_length);
  if (tokens > static_cast<double>(config::most_tokens)) {
    fail("{}: schedule.epochs = {} of this data are {:.2g} tokens, and at most {:.0g} are counted; use fewer",
         job.source, job.schedule.epochs, tokens, static_cast<double>(config::most_tokens));
  }
  job.schedule.steps = (job.schedule.epochs * samples + job.data.batch - 1) / job.data.batch;
  return job;
}

std::unique_ptr<data::Samples> training_samples(const config::JobConfig& job, const TrainingData& data) {
  return samples_of(job, data, data::Split::train, job.data.sampling);
}

std::unique_ptr<data::Samples> validation_samples(const config::JobConfig& job, const TrainingData& data) {
  return samples_of(job, data, data::Split::validation, data::Sampling::ordered);
}

}  // namespace ratplus::train
