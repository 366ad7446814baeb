#include "lib/train/run_directory.h"

#include <doctest/doctest.h>

#include <functional>

#include "data/pending_file.h"
#include "kernels/error.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/train/session.h"
#include "tests/parallel/ranks.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

namespace {

config::JobConfig job_in(const std::filesystem::path& directory) {
  return config::parse_job(
      "[job]\ndirectory = \"" + directory.string() +
          "\"\n[model]\nlayers = 1\nwidth = 32\nhead_dim = 16\nvocab_size = 50\n[data]\ndirectory = \"d\"\n"
          "window = 16\nbatch = 4\n[schedule]\nsteps = 10\n",
      "job.toml");
}

void save_at(const config::JobConfig& job, std::int64_t step) {
  train::Session session({.model = job.model, .shapes = {1, 16}, .optimizer = {}, .threads = 1}, world());
  checkpoint::save(world(),
                   {.directory = checkpoint::step_directory(job.job.directory, step), .model = job.model, .step = step,
                    .job = config::to_toml(job), .tokenizer = "t"},
                   session.store(), session.optimizer(), session.ops());
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a fresh directory starts a run; one that holds a run needs --resume") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  CHECK(!train::look_at_run(job, false).checkpoint);
  CHECK(!train::look_at_run(job, true).checkpoint);
  save_at(job, 4);
  CHECK(contains(message_of([&] { train::look_at_run(job, false); }), "--resume"));
  const auto state = train::look_at_run(job, true);
  CHECK(state.step == 4);
  CHECK(!state.finished);
  save_at(job, 10);
  CHECK(train::look_at_run(job, true).finished);
}

TEST_CASE("a run that wrote metrics but no checkpoint is not overwritten either") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch.path());
  data::write_whole_file(scratch / "metrics.jsonl", "");
  CHECK(contains(message_of([&] { train::look_at_run(job, false); }), "holds a run already"));
}

TEST_CASE("resuming with another computation names the keys; what is free to change may") {
  const test::ScratchDirectory scratch;
  auto job = job_in(scratch / "run");
  save_at(job, 4);
  job.optimizer.weight_decay = 0.25;
  const auto message = message_of([&] { train::look_at_run(job, true); });
  CHECK(contains(message, "optimizer.weight_decay = 0.25"));
  CHECK(!contains(message, "beta1"));
  job = job_in(scratch / "run");
  job.data.micro_batch = 2;
  job.log.every = 1;
  job.job.threads = 3;
  job.parallel.shard = parallel::Sharding::full;
  CHECK(train::look_at_run(job, true).step == 4);
}

TEST_CASE("two processes cannot train in one run directory") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  {
    train::RunDirectory first(job);
    first.log("hello");
    CHECK(contains(message_of([&] { train::RunDirectory second(job); }), "another process"));
  }
  train::RunDirectory again(job);
  CHECK(contains(data::read_whole_file(scratch.path() / "run" / "log.txt"), "hello"));
  CHECK(config::load_job(scratch.path() / "run" / "job.toml", {}) == job);
}
