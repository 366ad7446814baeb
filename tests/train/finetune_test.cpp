// Fine-tuning (docs/model.md, section 17) on a small made task that can be learnt: a digit's successor,
// whatever stands before it.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <random>

#include "base/stop_signal.h"
#include "data/prepare/supervised.h"
#include "data/samples/supervised_samples.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/session/start_defaults.h"
#include "lib/train/trainer.h"
#include "tests/support/messages.h"
#include "tests/support/ranks.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

namespace {

class Losses : public train::TrainListener {
 public:
  void on_start(session::Session&, std::int64_t) override {}
  void on_phase(const std::string&) override {}
  void on_step(const run::StepMetrics& metrics, bool) override { steps.push_back(metrics.updates[0].loss); }
  void on_validation(const run::ValidationMetrics& metrics) override {
    validation = metrics.results[0].loss;
    accuracy = metrics.results[0].accuracy;
  }
  void on_load(const run::LoadMetrics&) override {}
  void on_checkpoint(const run::CheckpointMetrics&) override {}
  void on_warning(const std::string&) override {}

  std::vector<double> steps;
  double validation = 0;
  std::optional<evaluation::Accuracy> accuracy;
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
      "[data]\ndirectory = \"{0}/data\"\nsequence_length = 16\nbatch = 16\nmicro_batch = 8\n"
      "[schedule]\nepochs = 14\npeak_lr = 1e-2\n",
      scratch.path().string());
  return config::parse_job(text, "job.toml");
}

/// The task as samples with labels, and the checkpoint that fine-tuning begins with.
data::Manifest make_task(const test::ScratchDirectory& scratch, const config::JobConfig& job, int lines) {
  write_task(scratch / "task.jsonl", lines);
  data::SupervisedOptions options;
  options.inputs = {scratch / "task.jsonl"};
  options.output = scratch / "data";
  options.tokenizer = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json";
  options.length = 16;
  const data::Manifest manifest = data::prepare_supervised(options, [](std::int64_t) {}).manifest;
  session::Session session(
      {.model = job.model, .shapes = {1, job.data.sequence_length}, .optimizer = {}, .threads = 1}, world());
  session.set_initial_weights(1);
  checkpoint::save(world(),
                   {.directory = job.job.from,
                    .model = job.model,
                    .job = config::to_toml(job),
                    .tokenizer = manifest.tokenizer},
                   session.store(), session.optimizer(), session.ops());
  return manifest;
}

/// Asks the run to end after a step, as Ctrl-C would.
class Stopping : public Losses {
 public:
  explicit Stopping(std::int64_t after) : after_(after) {}
  void on_step(const run::StepMetrics& metrics, bool logged) override {
    Losses::on_step(metrics, logged);
    if (std::ssize(steps) == after_) std::raise(SIGTERM);
  }

 private:
  std::int64_t after_;
};

/// Every weight and moment of a run's last checkpoint, as the files have them.
std::vector<std::string> state_of(const std::filesystem::path& run) {
  std::vector<std::string> parts;
  const auto info = checkpoint::read_info(checkpoint::resolve(run));
  for (int part = 0; part < info.parts; ++part) {
    std::ifstream in(info.directory / checkpoint::file_name(part), std::ios::binary);
    parts.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return parts;
}

}  // namespace

TEST_CASE("fine-tuning learns a small task, from a checkpoint, over epochs in random order") {
  const test::ScratchDirectory scratch;
  config::JobConfig job = finetune_job(scratch);
  const data::Manifest manifest = make_task(scratch, job, 1200);
  job = train::complete_schedule(job, world());
  const std::int64_t samples = manifest.documents(data::Split::train);
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
  REQUIRE(losses.accuracy);
  CHECK(losses.accuracy->token > 0.98);
  CHECK(losses.accuracy->completion > 0.95);
}

TEST_CASE("a validation's accuracy is that of a count by hand over the logits of the saved weights") {
  const test::ScratchDirectory scratch;
  config::JobConfig job = finetune_job(scratch);
  job.job.device = DeviceChoice::cpu;
  job.schedule.epochs = 3;
  job.log.validation_sequences = 5;
  const data::Manifest manifest = make_task(scratch, job, 800);
  job = train::complete_schedule(job, world());
  std::filesystem::create_directories(job.job.directory);
  const auto data = train::open_data(job, world());
  Losses losses;
  train::Trainer trainer(job, world(), data, train::find_start(job, data, world(), std::nullopt), losses);
  CHECK(trainer.run() == train::Outcome::finished);
  REQUIRE(losses.accuracy);

  constexpr std::int64_t length = 16, vocab = 700;
  const model::PassShapes shapes{1, length};
  session::Session session(
      {.model = job.model, .shapes = shapes, .use = parallel::Use::evaluation, .optimizer = {}, .threads = 1},
      world());
  checkpoint::load_weights(checkpoint::read_info(checkpoint::resolve(job.job.directory)), session.store(),
                           session.ops());
  session.store().publish_masters();
  data::SupervisedSamples samples({{job.data.directory, 1, manifest}},
                                  {.split = data::Split::validation, .sequence_length = length});
  std::vector<std::int32_t> inputs(length), labels(length);
  std::vector<float> logits(length * vocab);
  const Tensor out(logits.data(), DType::f32, {length, vocab});
  double tokens = 0, hits = 0, completions = 0, whole = 0;
  const auto all = manifest.documents(data::Split::validation);
  constexpr std::int64_t count = 5;
  REQUIRE(all > 2 * count);
  for (std::int64_t sample = 0; sample < count; ++sample) {
    samples.read(sample * all / count, inputs, labels);
    session.model().logits(inputs, job.job.pattern, out);
    const auto is_hit = [&](std::size_t i) {
      const auto row = std::span(logits).subspan(i * vocab, vocab);
      return std::max_element(row.begin(), row.end()) - row.begin() == labels[i];
    };
    // The task's completions are of two tokens, the second of which is the end, 0.
    for (std::size_t i = 0; i + 1 < length; ++i) {
      if (labels[i] < 100) continue;
      REQUIRE(labels[i + 1] == 0);
      tokens += 2, ++completions;
      hits += static_cast<double>(is_hit(i)) + static_cast<double>(is_hit(i + 1));
      whole += static_cast<double>(is_hit(i) && is_hit(i + 1));
    }
  }
  CHECK(completions > static_cast<double>(count));  // several to a sample
  CHECK(whole > 0);
  CHECK(whole < completions);
  CHECK(losses.accuracy->token == hits / tokens);
  CHECK(losses.accuracy->completion == whole / completions);
}

TEST_CASE("a completion is a run of counted labels of one sample, and is right where all of it is") {
  evaluation::HitCounts counts;
  const std::vector<std::int32_t> labels = {-1, 5, 6, -1, 7,  -100,
                                            8,  9, 4, -1, -1, -1};  // three samples of 4
  const std::vector<std::int32_t> hits = {0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0};
  counts.add(labels, hits, 4);
  CHECK(counts.tokens == 6);
  CHECK(counts.token_hits == 5);
  CHECK(counts.completions == 4);  // 5 6; 7; 8 9; 4
  CHECK(counts.completion_hits == 3);
  counts.add(std::vector<std::int32_t>{3, 2}, std::vector<std::int32_t>{1, 0}, 2);
  CHECK(counts.completions == 5);
  CHECK(counts.accuracy().token == 6 / 8.0);
  CHECK(counts.accuracy().completion == 3 / 5.0);
}

TEST_CASE("fine-tuning that is stopped half-way and resumed gives the same weights, bit for bit") {
  const test::ScratchDirectory scratch;
  config::JobConfig job = finetune_job(scratch);
  job.schedule.epochs = 2;
  make_task(scratch, job, 400);
  job = train::complete_schedule(job, world());
  const auto run = [&](train::TrainListener& listener, bool resume) {
    std::filesystem::create_directories(job.job.directory);
    const auto data = train::open_data(job, world());
    const auto from = resume ? std::optional(checkpoint::resolve(job.job.directory)) : std::nullopt;
    const StopSignal signal;
    return train::Trainer(job, world(), data, train::find_start(job, data, world(), from), listener).run();
  };
  const std::int64_t steps = job.schedule.steps;
  REQUIRE(steps > 20);
  Losses undisturbed;
  CHECK(run(undisturbed, false) == train::Outcome::finished);
  const std::string whole = job.job.directory;

  job.job.directory = (scratch / "stopped").string();
  Stopping first(steps / 2 + 1);  // in the second epoch
  CHECK(run(first, false) == train::Outcome::interrupted);
  CHECK(std::ssize(first.steps) == steps / 2 + 1);
  CHECK(state_of(job.job.directory) != state_of(whole));
  Losses second;
  CHECK(run(second, true) == train::Outcome::finished);
  std::vector<double> all = first.steps;
  all.insert(all.end(), second.steps.begin(), second.steps.end());
  CHECK(all == undisturbed.steps);
  CHECK(second.validation == undisturbed.validation);
  CHECK(state_of(job.job.directory) == state_of(whole));
}

TEST_CASE("a job that begins with weights takes their model and pattern, and another pattern is noted") {
  const test::ScratchDirectory scratch;
  const config::JobConfig made = finetune_job(scratch);
  make_task(scratch, made, 100);  // its checkpoint's job is one of fine-tuning with 4,0,1
  const std::string text = fmt::format(
      "[job]\nkind = \"finetune\"\nfrom = \"{0}/initial\"\ndirectory = \"{0}/next\"\n"
      "[data]\ndirectory = \"{0}/data\"\nsequence_length = 16\n",
      scratch.path().string());
  const auto job = config::parse_job(text, "job.toml", {}, session::start_defaults);
  CHECK(job.model == made.model);
  CHECK(job.job.pattern.describe() == "4,0,1");
  const auto info = checkpoint::read_info(made.job.from);
  CHECK(session::other_pattern_note(info, job.job.pattern).empty());
  const auto dense = config::parse_job(text, "job.toml", {"job.pattern=dense"}, session::start_defaults);
  CHECK(dense.job.pattern.describe() == "dense");
  CHECK(test::contains(session::other_pattern_note(info, dense.job.pattern),
                       "was trained with the pattern 4,0,1, and is used with dense"));
  const auto other = config::parse_job(text, "job.toml", {"model.layers=3"}, session::start_defaults);
  const auto data = train::open_data(job, world());
  CHECK(test::contains(test::message_of([&] { train::look_at_start(other, data, made.job.from, false); }),
                       "model.layers = 3, it has 2"));
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
  job.data.sequence_length = 8;
  CHECK(test::contains(
      message(), "data.sequence_length = 8, but " + job.data.directory + " has samples of 16 inputs; set"));
  job.data.sequence_length = 16;
  job.job.kind = config::Kind::adapt;
  CHECK(test::contains(message(),
                       "holds samples with labels, which are for job.kind = \"finetune\", not \"adapt\""));
}
