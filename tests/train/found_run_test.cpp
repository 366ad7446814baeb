// What a job finds in its run directory: the state, what is said of it, what it would begin with, and its last weights.
#include "lib/train/found_run.h"

#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/files/pending_file.h"
#include "base/stop_signal.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/run/run_end.h"
#include "lib/run/start_files.h"
#include "lib/train/last_weights.h"
#include "lib/weights/source.h"
#include "tests/support/messages.h"
#include "tests/support/ranks.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using test::contains;
using test::message_of;
namespace fs = std::filesystem;

namespace {

config::JobConfig job_in(const fs::path& directory, const std::vector<std::string>& overrides = {}) {
  return config::parse_job(
      "[job]\ndirectory = \"" + directory.string() +
          "\"\ndevice = \"cpu\"\nthreads = 1\n[model]\nlayers = 1\nwidth = 32\nhead_dim = 16\n"
          "vocab_size = 50\n[data]\ndirectory = \"d\"\nwindow = 16\nbatch = 4\n"
          "[schedule]\nsteps = 10\n",
      "job.toml", overrides);
}

fs::path save_at(const config::JobConfig& job, std::int64_t step) {
  session::Session session({.model = job.model, .shapes = {1, 16}, .optimizer = {}, .threads = 1}, world());
  session.set_initial_weights(static_cast<std::uint64_t>(step));
  const auto directory = checkpoint::step_directory(job.job.directory, step);
  checkpoint::save(world(),
                   {.directory = directory,
                    .model = job.model,
                    .step = step,
                    .job = config::to_toml(job),
                    .tokenizer = "t"},
                   session.store(), session.optimizer(), session.ops());
  return directory;
}

void flip_last_byte(const fs::path& file) {
  auto bytes = read_whole_file(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_whole_file(file, bytes);
}

/// Data that are looked at as far as their identity.
train::TrainingData data_of(const std::string& tokenizer) {
  train::TrainingData data;
  data.manifest.tokenizer = tokenizer;
  data.sources = {{"d", 1, data.manifest}};
  return data;
}

}  // namespace

TEST_CASE("found run: nothing, a checkpoint, and a newer one that is damaged") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  const auto nothing = train::find_run(job, true, world());
  CHECK(!nothing.state.checkpoint);
  CHECK(nothing.verified_bytes == 0);
  const auto fourth = save_at(job, 4);
  const auto seventh = save_at(job, 7);
  CHECK(contains(message_of([&] { train::find_run(job, false, world()); }), "--resume"));
  std::int64_t read = 0;
  auto found = train::find_run(job, true, world(), [&](std::int64_t bytes) { read += bytes; });
  CHECK(found.state.checkpoint == seventh);
  CHECK(found.state.step == 7);
  CHECK(!found.state.finished);
  CHECK(found.damaged.empty());
  CHECK(found.verified_bytes == read);
  CHECK(read > 0);
  CHECK(train::set_aside(found, world()).empty());
  // To be verified while it is loaded: nothing is read before.
  std::int64_t before = 0;
  const auto count = [&](std::int64_t bytes) { before += bytes; };
  found = train::find_run(job, true, world(), count, train::Verify::while_loading);
  CHECK(found.state.checkpoint == seventh);
  CHECK(found.state.step == 7);
  CHECK(found.unverified);
  CHECK(before == 0);

  flip_last_byte(seventh / checkpoint::file_name(0));
  found = train::find_run(job, true, world());
  CHECK(found.state.checkpoint == fourth);
  REQUIRE(found.damaged.size() == 1);
  CHECK(fs::exists(seventh));  // until it is set aside
  const auto lines = train::set_aside(found, world());
  REQUIRE(lines.size() == 2);
  CHECK(contains(lines[0], checkpoint::file_name(0)));
  CHECK(contains(lines[1], "step-00000007.damaged, and the one before it is taken, " + fourth.string()));
  CHECK(!fs::exists(seventh));
  CHECK(fs::exists(seventh.string() + ".damaged"));
  save_at(job, 10);
  CHECK(train::find_run(job, true, world()).state.finished);
  // A finished run's is not loaded, and verified at once.
  found = train::find_run(job, true, world(), count, train::Verify::while_loading);
  CHECK(found.state.finished);
  CHECK_FALSE(found.unverified);
  CHECK(before > 0);
}

TEST_CASE("found run: what is said of a start, and nothing of one that is in order") {
  const auto job = job_in("run", {"job.pattern=dense"});
  using Notes = std::vector<std::string>;
  CHECK(train::start_notes(job, false, {}, {}) == Notes{});
  CHECK(train::start_notes(job, true, {}, {}) ==
        Notes{"no checkpoint to resume from: starting at the beginning"});

  train::FoundRun older;
  older.state = {.checkpoint = "run/checkpoints/step-00000004", .step = 4, .finished = false};
  CHECK(contains(train::missing_checkpoint_note(older, 7),
                 "the run records a checkpoint of step 7, and the newest one here is of step 4"));
  CHECK(train::missing_checkpoint_note(older, 4).empty());
  older.damaged = {
      {"run/checkpoints/step-00000007", "damaged"}};  // that is the reason, and is said elsewhere
  CHECK(train::missing_checkpoint_note(older, 7).empty());

  train::StartingPoint start;
  start.checkpoint.emplace();
  start.checkpoint->directory = "weights.pth";
  auto notes = train::start_notes(job, false, {}, start);
  REQUIRE(notes.size() == 1);
  CHECK(contains(notes[0], "weights.pth does not say which tokenizer"));
  start.checkpoint->tokenizer = "t";
  CHECK(train::start_notes(job, false, {}, start).empty());
  start.same_data = false;
  notes = train::start_notes(job, false, {}, start);
  REQUIRE(notes.size() == 1);
  CHECK(contains(notes[0], "known by their sizes alone"));
  start.same_data = true;
  start.checkpoint->job = config::to_toml(
      job_in("sparse", {"job.kind=adapt", "job.recipe=plain", "job.from=x", "job.pattern=4,0,1"}));
  notes = train::start_notes(job, false, {}, start);
  REQUIRE(notes.size() == 1);
  CHECK(contains(notes[0], "was trained with the pattern 4,0,1, and is used with dense"));
  start.resume = true;  // its own job, whose pattern was compared
  CHECK(train::start_notes(job, false, {}, start).empty());
}

TEST_CASE("found run: complete once its newest start is recorded as finished") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch.path());
  CHECK(!train::is_complete(job, world()));
  fs::create_directories(scratch / "starts");
  const auto start = run::next_start_file(scratch.path());
  write_whole_file(start, "{}");
  run::write_run_end(start, {.how = run::RunEnd::How::stopped, .step = 10, .signal = "SIGTERM"});
  CHECK(!train::is_complete(job, world()));
  run::write_run_end(start, {.how = run::RunEnd::How::finished, .step = 10});
  CHECK(train::is_complete(job, world()));
}

TEST_CASE("found run: what a job would begin with") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  const auto data = data_of("t");
  CHECK(train::look_ahead(job, data, false).text == "10 steps from initial weights");
  const auto fourth = save_at(job, 4);
  auto outlook = train::look_ahead(job, data, false);
  CHECK(outlook.text == "resumes at step 4 of 10");
  CHECK(!outlook.finished);
  CHECK(contains(message_of([&] { train::look_ahead(job, data_of("another"), false); }),
                 "was trained on tokens of t, but d has tokens of another"));
  save_at(job, 10);
  outlook = train::look_ahead(job, data, false);
  CHECK(outlook.text == "10 of 10 steps");
  CHECK(outlook.finished);

  const auto adapting = [&](const fs::path& from) {
    return job_in(scratch / "adapted", {"job.kind=adapt", "job.recipe=plain", "job.from=" + from.string()});
  };
  CHECK(train::look_ahead(adapting(fourth), data, false).text == "10 steps from " + fourth.string());
  const auto to_come = adapting(scratch / "to-come");
  CHECK(contains(train::look_ahead(to_come, data, true).text, "to-come, which is not there yet"));
  CHECK(contains(message_of([&] { train::look_ahead(to_come, data, false); }), "to-come"));
}

TEST_CASE("last weights: written where the job asks for them, and ended by a signal without a trace") {
  const test::ScratchDirectory scratch;
  const auto none = job_in(scratch / "run");
  save_at(none, 10);
  CHECK(!train::export_last_weights(none, world(), {}));
  CHECK(!fs::exists(train::last_weights_file(none)));
  const auto job = job_in(scratch / "run", {"checkpoint.export=bfloat16"});
  {
    const StopSignal signal;
    std::raise(SIGTERM);
    CHECK(contains(message_of([&] { train::export_last_weights(job, world(), {}); }),
                   "weights.safetensors: stopped by SIGTERM while it was written; --resume writes it"));
  }
  CHECK(!fs::exists(train::last_weights_file(job)));
  const StopSignal no_signal_yet;
  std::int64_t bytes = 0;
  const auto file = train::export_last_weights(job, world(), [&](std::int64_t more) { bytes += more; });
  REQUIRE(file);
  CHECK(*file == scratch / "run" / "weights.safetensors");
  CHECK(bytes > 0);
  const auto source = weights::open_source(*file);
  CHECK(source->info().model.layers == 1);
  CHECK(std::string(to_string(source->stored_type(0, 0))) == "bfloat16");
  CHECK(train::export_last_weights(job, world(), {}) == file);  // again, in its place
}
