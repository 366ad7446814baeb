// The trainer against PyTorch: learning rates, losses and gradient norms over a whole run, and the final weights.
#include <doctest/doctest.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/dataset/manifest.h"
#include "data/dataset/shard.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/train/trainer.h"
#include "tests/support/modes.h"
#include "tests/support/ranks.h"
#include "tests/support/reference_file.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

namespace {

/// Relative errors allowed over a run. In bf16 some three times those of PyTorch with products rounded to bf16.
struct Tolerance {
  double loss, gradient_norm, weights;
};
Tolerance tolerance_of(const test::Mode& mode) {
  const bool rounded = mode.device != DeviceChoice::cpu && mode.precision == DType::bf16;
  return rounded ? Tolerance{2e-3, 1e-2, 1.2e-2} : Tolerance{1e-4, 1e-4, 1e-4};
}

class Silent : public train::TrainListener {
  void on_start(session::Session&, std::int64_t) override {}
  void on_phase(const std::string& text) override {
    if (text.starts_with(signal_in)) std::raise(SIGTERM);
  }
  void on_step(const run::StepMetrics& metrics, bool) override { steps.push_back(metrics); }
  void on_validation(const run::ValidationMetrics&) override { ++validations; }
  void on_load(const run::LoadMetrics&) override {}
  void on_checkpoint(const run::CheckpointMetrics&) override {}
  void on_warning(const std::string&) override {}

 public:
  std::vector<run::StepMetrics> steps;
  int validations = 0;
  std::string signal_in = "nothing";  ///< at the beginning of such a phase SIGTERM comes
};

/// A dataset whose stream begins with these tokens: cut into documents after each end-of-text token.
void write_dataset(const std::filesystem::path& directory, const std::vector<std::int32_t>& stream,
                   std::int64_t vocab_size, std::int32_t end_of_text) {
  std::filesystem::create_directories(directory);
  data::Manifest manifest;
  manifest.vocab_size = vocab_size;
  manifest.end_of_text = end_of_text;
  manifest.tokenizer = "test";
  for (const char* file : {"train-00000.h5", "validation-00000.h5"}) {
    data::ShardWriter writer(directory / file,
                             {.vocab_size = vocab_size, .end_of_text = end_of_text, .tokenizer = "test"}, {});
    std::vector<std::int32_t> document;
    for (const auto token : stream) {
      if (token != end_of_text) {
        document.push_back(token);
        continue;
      }
      writer.add_document(document);
      document.clear();
    }
    writer.add_document(document);
    const auto info = writer.finish();
    auto& shards = file[0] == 't' ? manifest.train : manifest.validation;
    shards.push_back({.file = file, .tokens = info.tokens, .documents = info.documents});
  }
  data::write_manifest(directory, manifest);
}

/// A checkpoint of the reference's initial weights, to start from.
void write_initial_checkpoint(const std::filesystem::path& directory, const test::ReferenceFile& file,
                              const std::string& name, const config::JobConfig& job) {
  session::Session session(
      {.model = job.model, .shapes = {1, job.data.sequence_length}, .optimizer = {}, .threads = 1}, world());
  test::load_weights(session, file, name + "/initial");
  checkpoint::save(
      world(), {.directory = directory, .model = job.model, .job = config::to_toml(job), .tokenizer = "test"},
      session.store(), session.optimizer(), session.ops());
}

config::JobConfig job_of(const hdf5::Group& group, const test::ScratchDirectory& scratch,
                         const test::Mode& mode, std::int64_t micro_batch) {
  config::JobConfig job;
  job.job.kind = config::Kind::adapt;  // from given weights
  job.job.recipe =
      group.string_attribute("recipe") == "joint" ? config::Recipe::joint : config::Recipe::plain;
  job.job.pattern = test::plan_of(group.string_attribute("pattern"));
  if (group.has_attribute("joint_pattern")) {
    job.job.joint_pattern = test::plan_of(group.string_attribute("joint_pattern"));
  }
  job.job.directory = scratch / "run";
  job.job.from = scratch / "initial";
  job.job.device = mode.device;
  job.job.precision = mode.precision;
  job.job.threads = 1;
  job.model = test::model_of(group);
  job.data.directory = scratch / "data";
  job.data.sequence_length = group.integer_attribute("window");
  job.data.batch = group.integer_attribute("batch");
  job.data.micro_batch = micro_batch;
  job.optimizer = {.beta1 = group.real_attribute("beta1"),
                   .beta2 = group.real_attribute("beta2"),
                   .eps = group.real_attribute("eps"),
                   .weight_decay = group.real_attribute("weight_decay"),
                   .clip = group.real_attribute("clip")};
  job.schedule = {.steps = group.integer_attribute("steps"),
                  .peak_lr = group.real_attribute("peak_lr"),
                  .floor_lr = group.real_attribute("floor_lr"),
                  .warmup = group.real_attribute("warmup")};
  job.log.validation_patterns = {job.job.pattern};
  job.log.validation_sequences = 1;
  return job;
}

void check_trajectory(const std::string& name, const test::Mode& mode, std::int64_t micro_batch) {
  CAPTURE(name);
  CAPTURE(mode.name);
  CAPTURE(micro_batch);
  const test::ReferenceFile file("trajectory.h5");
  const auto group = file.group(name);
  const test::ScratchDirectory scratch;
  const auto job = job_of(group, scratch, mode, micro_batch);
  write_dataset(job.data.directory, file.array<std::int32_t>(name + "/stream"), job.model.vocab_size,
                static_cast<std::int32_t>(group.integer_attribute("end_of_text")));
  write_initial_checkpoint(job.job.from, file, name, job);
  std::filesystem::create_directories(job.job.directory);

  Silent listener;
  const auto dataset = train::open_data(job, world());
  train::Trainer trainer(job, world(), dataset, train::find_start(job, dataset, world(), std::nullopt),
                         listener);
  CHECK(trainer.run() == train::Outcome::finished);

  const Tolerance tolerance = tolerance_of(mode);
  const auto rates = file.array<double>(name + "/lr");
  const auto losses = file.array<double>(name + "/loss");
  const auto norms = file.array<double>(name + "/grad_norm");
  REQUIRE(listener.steps.size() == rates.size());
  REQUIRE(rates.size() >= 8);
  std::size_t at = 0;
  for (std::size_t n = 0; n < rates.size(); ++n) {
    CAPTURE(n);
    CHECK(listener.steps[n].learning_rate == doctest::Approx(rates[n]).epsilon(1e-12));
    for (const auto& update : listener.steps[n].updates) {
      CHECK(std::abs(update.loss / losses.at(at) - 1) < tolerance.loss);
      CHECK(std::abs(update.gradient_norm / norms.at(at) - 1) < tolerance.gradient_norm);
      ++at;
    }
  }
  CHECK(at == losses.size());
  auto& store = trainer.session().store();
  for (std::size_t u = 0; u < store.units().size(); ++u) {
    for (const auto& slot : store.units()[u].slots) {
      CAPTURE(slot.name);
      CHECK(test::relative_error(test::parameter(trainer.session().ops(), store.master(u), slot),
                                 file.array<float>(name + "/final/" + slot.name)) < tolerance.weights);
    }
  }
}

}  // namespace

TEST_CASE("joint training follows PyTorch's trajectory") {
  for (const auto& mode : test::modes()) {
    check_trajectory("joint", mode, 4);
    check_trajectory("joint", mode, 1);
  }
}

TEST_CASE("adaptation follows PyTorch's trajectory") {
  for (const auto& mode : test::modes()) check_trajectory("adapt", mode, 2);
}

TEST_CASE("a signal in a validation, or in a save, is heeded there: no step more, saved, and made up for") {
  for (const std::string phase : {"validation 1/", "checkpoint"}) {
    CAPTURE(phase);
    const test::ReferenceFile file("trajectory.h5");
    const auto group = file.group("joint");
    const test::ScratchDirectory scratch;
    auto job = job_of(group, scratch, test::modes().front(), 1);
    job.log.validate_every = 3;
    job.log.validation_sequences = 4;
    job.checkpoint.every = phase == "checkpoint" ? 3 : 0;
    job.checkpoint.background = false;
    write_dataset(job.data.directory, file.array<std::int32_t>("joint/stream"), job.model.vocab_size,
                  static_cast<std::int32_t>(group.integer_attribute("end_of_text")));
    write_initial_checkpoint(job.job.from, file, "joint", job);
    std::filesystem::create_directories(job.job.directory);
    const auto dataset = train::open_data(job, world());
    const auto run = [&](Silent& listener, const std::optional<std::filesystem::path>& from) {
      train::Trainer trainer(job, world(), dataset, train::find_start(job, dataset, world(), from), listener);
      return trainer.run();
    };
    Silent first, second;
    first.signal_in = phase;
    CHECK(run(first, std::nullopt) == train::Outcome::interrupted);
    CHECK(first.steps.size() == 3);
    CHECK(first.validations == 0);
    const auto saved = checkpoint::newest(job.job.directory);
    REQUIRE(saved);
    CHECK(run(second, saved) == train::Outcome::finished);
    CHECK(second.steps.size() + 3 == static_cast<std::size_t>(job.schedule.steps));
    CHECK(first.validations + second.validations == (job.schedule.steps + 2) / 3);
  }
}
