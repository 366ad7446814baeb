#include "lib/evaluation/evaluation.h"
#include "lib/model/mixers.h"

#include <limits>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "data/samples/supervised_samples.h"
#include "lib/checkpoint/manifest.h"
#include "lib/config/pattern_toml.h"
#include "parallel/mesh.h"

namespace ratplus::evaluation {
namespace {

parallel::Settings fitting(parallel::Settings settings, const parallel::World& world) {
  settings.reduce = parallel::Reduce::f32;  // there are no gradients, and hosts may be unequal
  try {
    parallel::make_mesh(world.nodes(), world.rank(), settings);
  } catch (const Error&) {
    settings.shard_group = parallel::all_ranks;
  }
  return settings;
}

void check_dataset(const checkpoint::Info& info, const EvaluatedData& data) {
  const auto& directory = data.settings.dataset;
  if (data.manifest.vocab_size != info.model.vocab_size) {
    fail("{}: its vocabulary has {} tokens, the model's {}; prepare the text with the model's tokenizer",
         directory.string(), data.manifest.vocab_size, info.model.vocab_size);
  }
  checkpoint::check_same_tokenizer(info, directory, data.manifest);
}

}  // namespace

session::SessionSettings Evaluation::session_settings(const model::PassShapes& shapes,
                                                      const parallel::World& world) const {
  return {.model = info().model,
          .shapes = shapes,
          .use = parallel::Use::evaluation,
          .parallel = fitting(job.parallel, world),
          .optimizer = {},
          .device = device,
          .precision = precision,
          .threads = threads};
}

Evaluation resolve(const Request& request, const std::filesystem::path& path) {
  Evaluation e;
  model::ModelConfig assumed;
  if (request.head_dim > 0) assumed.head_dim = request.head_dim;
  e.source = weights::open_source(path, assumed);
  if (!e.info().job.empty())
    e.job = config::parse_job(e.info().job, (e.info().directory / checkpoint::manifest_name).string());
  e.micro_batch = request.micro_batch > 0 ? request.micro_batch : e.job.data.micro_batch;
  e.device = request.device.value_or(e.job.job.device);
  e.precision = request.precision.value_or(e.job.job.precision);
  e.threads = request.threads;
  for (const auto& text : request.patterns) e.patterns.push_back(config::parse_plan(text, "--pattern"));
  if (e.patterns.empty()) e.patterns.push_back(e.job.job.pattern);
  for (const auto& pattern : e.patterns) model::check_pattern(pattern, e.info().model, "--pattern");
  return e;
}

std::unique_ptr<Validator> EvaluatedData::validator(const parallel::World& world) const {
  if (!has_samples()) {
    auto validator = std::make_unique<Validator>(settings, manifest, world);
    validator->count_bytes(bytes);
    return validator;
  }
  const std::vector<data::SampleSource> only{{settings.dataset, 1, manifest}};
  auto samples = std::make_unique<data::SupervisedSamples>(
      only, data::StreamSamples::Settings{.split = settings.split,
                                          .sampling = data::Sampling::ordered,
                                          .sequence_length = settings.sequence_length,
                                          .seed = 0});
  return std::make_unique<Validator>(std::move(samples), settings.sequences, Validated::labelled, world,
                                     settings.parts);
}

EvaluatedData find_data(const Request& request, const Evaluation& evaluation) {
  const auto& info = evaluation.info();
  const auto& trained_on = evaluation.job.data;
  if (request.data.empty() && info.job.empty()) {
    fail("{}: does not say which data it was trained on; give --data DIR, or --tokens FILE",
         info.directory.string());
  }
  if (request.data.empty() && trained_on.directory.empty()) {
    fail("{}: was trained on {}; give the one to evaluate on with --data DIR ({}, ...)",
         info.directory.string(), counted(trained_on.sources.size(), "dataset"),
         trained_on.all_sources().front().directory);
  }
  EvaluatedData data;
  auto& settings = data.settings;
  settings.dataset = request.data.empty() ? trained_on.directory : request.data;
  settings.split = data::parse_split(request.split);
  settings.sequence_length =
      request.sequence_length > 0 ? request.sequence_length : trained_on.sequence_length;
  settings.sequences = request.sequences > 0 ? request.sequences : std::numeric_limits<std::int64_t>::max();
  data.manifest = data::read_manifest(settings.dataset);
  if (data.has_samples()) {
    const auto length = data.manifest.sample_length;
    if (request.sequence_length > 0 && request.sequence_length != length)
      fail("--sequence-length {}: {} holds samples of {} inputs; leave --sequence-length out",
           request.sequence_length, settings.dataset.string(), length);
    settings.sequence_length = length;
  }
  if (request.parts > settings.sequence_length)
    fail("--by-position {}: a sequence has {}; ask for as many parts or fewer", request.parts,
         counted(settings.sequence_length, "token"));
  settings.parts = request.parts;
  check_dataset(info, data);
  if (!data.has_samples()) {
    check_length(settings, data.manifest);  // before memory is taken for them
    data.bytes = text_bytes(settings.dataset, data.manifest);
  }
  return data;
}

}  // namespace ratplus::evaluation
