// Fine-tuning (spec 2.3) on a small made task that can be learnt: a digit's successor, whatever stands before it.
#include <doctest/doctest.h>

#include <fstream>
#include <random>

#include "data/supervised.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/train/trainer.h"
#include "tests/support/messages.h"
#include "tests/support/ranks.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

namespace {

class Losses : public train::TrainListener {
 public:
  void on_start(train::Session&, std::int64_t) override {}
  void on_phase(const std::string&) override {}
  void on_step(const train::StepMetrics& metrics, bool) override { steps.push_back(metrics.halves[0].loss); }
  void on_validation(const train::ValidationMetrics& metrics) override {
    validation = metrics.results[0].loss;
  }
  void on_checkpoint(const train::CheckpointMetrics&) override {}
  void on_warning(const std::string&) override {}

  std::vector<double> steps;
  double validation = 0;
};

/// {"tokens": [noise, noise, d, s, d + 1 mod 10, end], "labels": the last two}.
void write_task(const std::filesystem::path& file, int lines) {
  std::mt19937 random(7);
  std::ofstream out(file);
  for (int i = 0; i < lines; ++i) {
    const auto noise = [&] { return 200 + random() % 8; };
    const auto digit = random() % 10;
    const auto next = 100 + (digit + 1) % 10;
    out << fmt::format(
        "{{\"tokens\": [{}, {}, {}, 99, {}, 0], \"labels\": [-100, -100, -100, -100, {}, 0]}}\n", noise(),
        noise(), 100 + digit, next, next);
  }
}

config::JobConfig finetune_job(const test::ScratchDirectory& scratch) {
  const std::string text = fmt::format(
      "[job]\nkind = \"finetune\"\nfrom = \"{0}/initial\"\ndirectory = \"{0}/run\"\npattern = "
      "\"4,0,1\"\nthreads = 1\n"
      "[model]\nlayers = 2\nwidth = 32\nhead_dim = 16\nvocab_size = 700\n"
      "[data]\ndirectory = \"{0}/data\"\nwindow = 16\nbatch = 16\nmicro_batch = 8\n"
      "[schedule]\nepochs = 14\npeak_lr = 1e-2\n",
      scratch.path().string());
  return config::parse_job(text, "job.toml");
}

}  // namespace

TEST_CASE("fine-tuning learns a small task, from a checkpoint, over epochs in random order") {
  const test::ScratchDirectory scratch;
  write_task(scratch / "task.jsonl", 1200);
  data::SupervisedOptions options;
  options.inputs = {scratch / "task.jsonl"};
  options.output = scratch / "data";
  options.tokenizer = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json";
  options.length = 16;
  const auto made = data::prepare_supervised(options, [](std::int64_t) {});
  config::JobConfig job = finetune_job(scratch);
  {
    train::Session session(
        {.model = job.model, .shapes = {1, job.data.window}, .optimizer = {}, .threads = 1}, world());
    session.set_initial_weights(1);
    checkpoint::save(world(),
                     {.directory = job.job.from,
                      .model = job.model,
                      .job = config::to_toml(job),
                      .tokenizer = made.manifest.tokenizer},
                     session.store(), session.optimizer(), session.ops());
  }
  job = train::complete_schedule(job, world());
  const std::int64_t samples = made.manifest.documents(data::Split::train);
  CHECK(job.schedule.steps == (14 * samples + 15) / 16);
  std::filesystem::create_directories(job.job.directory);
  const auto data = train::open_data(job, world());
  Losses losses;
  train::Trainer trainer(job, world(), data, train::find_start(job, data, world(), std::nullopt), losses);
  CHECK(trainer.run() == train::Outcome::finished);
  // Uniform over the vocabulary is log(700) = 6.6; knowing the ten digits but not which, log(10) / 2 = 1.2 on average.
  CHECK(losses.steps.front() > 6);
  CHECK(losses.steps.back() < 0.1);
  CHECK(losses.validation < 0.1);
}

TEST_CASE("fine-tuning takes samples with labels, and other kinds do not") {
  const test::ScratchDirectory scratch;
  write_task(scratch / "task.jsonl", 100);
  data::SupervisedOptions options;
  options.inputs = {scratch / "task.jsonl"};
  options.output = scratch / "data";
  options.tokenizer = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json";
  options.length = 16;
  data::prepare_supervised(options, [](std::int64_t) {});
  config::JobConfig job = finetune_job(scratch);
  const auto message = [&] { return test::message_of([&] { train::open_data(job, world()); }); };
  CHECK(message().empty());
  job.data.window = 8;
  CHECK(test::contains(message(),
                       "data.window = 8, but " + job.data.directory + " has samples of 16 inputs; set"));
  job.data.window = 16;
  job.job.kind = config::Kind::adapt;
  CHECK(test::contains(message(),
                       "holds samples with labels, which are for job.kind = \"finetune\", not \"adapt\""));
}
