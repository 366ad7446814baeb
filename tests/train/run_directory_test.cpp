#include "lib/run/run_directory.h"

#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <optional>
#include <utility>

#include "base/files/append_file.h"
#include "base/files/pending_file.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/run/start_files.h"
#include "lib/session/session.h"
#include "tests/support/messages.h"
#include "tests/support/ranks.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using test::contains;
using test::message_of;

namespace {

/// What flock is to fail with, as on a file system without locks; 0: it works.
int flock_error = 0;

/// Called once, before the next lock is taken.
std::function<void()> before_flock;

}  // namespace

/// In the place of the C library's, in this program.
extern "C" int flock(int descriptor, int operation) noexcept {
  if (const auto once = std::exchange(before_flock, {})) once();
  if (flock_error == 0) return static_cast<int>(::syscall(SYS_flock, descriptor, operation));
  errno = flock_error;
  return -1;
}

namespace {

config::JobConfig job_in(const std::filesystem::path& directory,
                         const std::vector<std::string>& overrides = {}) {
  return config::parse_job("[job]\ndirectory = \"" + directory.string() +
                               "\"\ndevice = \"cpu\"\n[model]\nlayers = 1\nwidth = 32\nhead_dim = "
                               "16\nvocab_size = 50\n[data]\ndirectory = \"d\"\n"
                               "sequence_length = 16\nbatch = 4\n[schedule]\nsteps = 10\n",
                           "job.toml", overrides);
}

run::RunState look_at(const config::JobConfig& job, bool resume) {
  return run::look_at_run(job, resume, checkpoint::newest(job.job.directory));
}

void save_at(const config::JobConfig& job, std::int64_t step) {
  session::Session session({.model = job.model, .shapes = {1, 16}, .optimizer = {}, .threads = 1}, world());
  checkpoint::save(world(),
                   {.directory = checkpoint::step_directory(job.job.directory, step),
                    .model = job.model,
                    .step = step,
                    .job = config::to_toml(job),
                    .tokenizer = "t"},
                   session.store(), session.optimizer(), session.ops());
}

}  // namespace

TEST_CASE("a fresh directory starts a run; one that holds a run needs --resume") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  CHECK(!look_at(job, false).checkpoint);
  CHECK(!look_at(job, true).checkpoint);
  save_at(job, 4);
  CHECK(contains(message_of([&] { look_at(job, false); }), "--resume"));
  const auto state = look_at(job, true);
  CHECK(state.step == 4);
  CHECK(!state.finished);
  save_at(job, 10);
  CHECK(look_at(job, true).finished);
}

TEST_CASE("a run that wrote metrics but no checkpoint is not overwritten either") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch.path());
  write_whole_file(scratch / "metrics.jsonl", "");
  CHECK(contains(message_of([&] { look_at(job, false); }), "holds a run already"));
}

TEST_CASE("what a run without checkpoints reports is known, whatever else stands in its metrics") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch.path());
  const std::string others =
      "5\n\"checkpoint\"\n{\"kind\":\"checkpoint\",\"step\":null}\n{\"kind\":[\"checkpoint\"]}\n";
  write_whole_file(scratch / "metrics.jsonl", others);
  CHECK(!look_at(job, true).checkpoint);
  write_whole_file(scratch / "metrics.jsonl", others + "{\"kind\":\"checkpoint\",\"step\":7}\n");
  CHECK(contains(message_of([&] { look_at(job, true); }), "the run reports one of step 7"));
}

TEST_CASE("resuming with another computation names the keys; what is free to change may") {
  const test::ScratchDirectory scratch;
  auto job = job_in(scratch / "run");
  save_at(job, 4);
  job.optimizer.weight_decay = 0.25;
  const auto message = message_of([&] { look_at(job, true); });
  CHECK(contains(message, "optimizer.weight_decay = 0.25"));
  CHECK(!contains(message, "beta1"));
  job = job_in(scratch / "run");
  job.data.micro_batch = 2;
  job.log.every = 1;
  job.job.threads = 3;
  job.parallel.shard = parallel::Sharding::full;
  CHECK(look_at(job, true).step == 4);
}

TEST_CASE("another pattern of a layer or a head is another computation") {
  const test::ScratchDirectory scratch;
  const auto with = [&](const std::string& pattern) {
    return job_in(scratch / "run", {"model.layers=2", "job.pattern=" + pattern});
  };
  const auto layers = R"(["16,4,0", "dense"])";
  const auto heads = R"([["16,4,0", "dense"], "dense"])";
  save_at(with(layers), 4);
  CHECK(look_at(with(layers), true).step == 4);
  CHECK(contains(message_of([&] { look_at(with(R"(["32,4,0", "dense"])"), true); }),
                 R"(job.pattern = ["32,4,0", "dense"] (was ["16,4,0", "dense"]))"));
  save_at(with(heads), 5);
  CHECK(look_at(with(heads), true).step == 5);
  CHECK(contains(message_of([&] { look_at(with(R"([["16,5,0", "dense"], "dense"])"), true); }),
                 R"(job.pattern = [["16,5,0", "dense"], "dense"] (was [["16,4,0", "dense"], "dense"]))"));
}

TEST_CASE("steps may be given as tokens instead") {
  const test::ScratchDirectory scratch;
  save_at(job_in(scratch / "run"), 4);
  CHECK(look_at(job_in(scratch / "run", {"schedule.tokens=640"}), true).step == 4);
  CHECK(contains(message_of([&] { look_at(job_in(scratch / "run", {"schedule.tokens=512"}), true); }),
                 "schedule.steps = 8 (was 10)"));
}

TEST_CASE("a run is made longer only where its learning rates so far stay those of the longer schedule") {
  const test::ScratchDirectory scratch;
  const std::vector<std::string> constant = {"schedule.shape=constant", "schedule.warmup=0.3"};
  const auto with = [&](std::vector<std::string> overrides, const std::vector<std::string>& more) {
    overrides.insert(overrides.end(), more.begin(), more.end());
    return job_in(scratch / overrides.front(), overrides);
  };
  const auto refusal_of = [&](const config::JobConfig& job) {
    return message_of([&] { look_at(job, true); });
  };

  save_at(with(constant, {}), 4);
  CHECK(look_at(with(constant, {"schedule.steps=100", "schedule.warmup=0.03"}), true).step == 4);
  CHECK(look_at(with(constant, {"schedule.tokens=6400", "schedule.warmup=0.03"}), true).step == 4);
  const auto warmup = refusal_of(with(constant, {"schedule.steps=70"}));
  CHECK(contains(warmup, "schedule.steps = 70 (was 10)"));
  CHECK(contains(warmup,
                 "warmed up over 21 steps, and this one did over 3: keep that with --set "
                 "schedule.warmup=0.043"));
  CHECK(look_at(with(constant, {"schedule.steps=70", "schedule.warmup=0.043"}), true).step == 4);
  CHECK(contains(refusal_of(with(constant, {"schedule.steps=9"})), "schedule.steps = 9 (was 10)"));
  // Other keys are no freer for it.
  const auto other =
      refusal_of(with(constant, {"schedule.steps=100", "schedule.warmup=0.03", "schedule.peak_lr=1e-3"}));
  CHECK(contains(other, "schedule.peak_lr = 0.001"));
  CHECK(!contains(other, "schedule.steps"));
  CHECK(!look_at(with(constant, {"schedule.steps=100", "schedule.warmup=0.03"}), true).finished);

  const std::vector<std::string> wsd = {"schedule.shape=wsd", "schedule.warmup=0", "schedule.decay=0.4"};
  save_at(with(wsd, {}), 6);  // the decay's first step is the next
  CHECK(look_at(with(wsd, {"schedule.steps=20"}), true).step == 6);
  CHECK(look_at(with(wsd, {"schedule.steps=20", "schedule.decay=0.7"}), true).step == 6);
  CHECK(contains(refusal_of(with(wsd, {"schedule.steps=20", "schedule.decay=0.8"})), "began at step 4"));
  CHECK(contains(refusal_of(with(wsd, {"schedule.decay=0.3"})), "schedule.decay = 0.3 (was 0.4)"));
  save_at(with(wsd, {}), 7);
  const auto decayed = refusal_of(with(wsd, {"schedule.steps=20"}));
  CHECK(contains(decayed,
                 "before its decay, which began at step 6, and 7 steps were made; one goes on from a "
                 "checkpoint of step 6 or before"));

  const std::vector<std::string> cosine = {"schedule.warmup=0"};
  save_at(with(cosine, {}), 4);
  CHECK(contains(refusal_of(with(cosine, {"schedule.steps=20"})), "a cosine falls over all the steps"));
}

TEST_CASE("differences: every key, and only those") {
  const auto job = job_in("run");
  CHECK(config::differences(job, job).empty());
  auto other = job;
  other.job.recipe = config::Recipe::joint;
  other.job.pattern = model::PatternPlan({{Pattern{16, 4, 0}, Pattern()}});  // by head, not by layer
  other.job.directory = "there";
  other.model.mixers = {{model::MixerKind::gated_attention}};
  other.schedule.steps = 8;
  other.schedule.floor_lr = 0;
  other.log.validation_patterns = {model::PatternPlan(Pattern{16, 4, 0}), model::PatternPlan()};
  CHECK(config::differences(job, other) ==
        std::vector<std::string>{"job.recipe = \"joint\" (was \"plain\")",
                                 "job.directory = \"there\" (was \"run\")",
                                 "job.pattern = [[\"16,4,0\", \"dense\"]] (was \"dense\")",
                                 "model.mixer = \"gated_attention\" (was \"ratplus\")",
                                 "schedule.steps = 8 (was 10)", "schedule.floor_lr = 0 (was 1e-06)",
                                 "log.validation_patterns = [\"16,4,0\", \"dense\"] (was [\"dense\"])"});
}

TEST_CASE("a file system without locks is no obstacle, but is mentioned") {
  const test::ScratchDirectory scratch;
  flock_error = ENOLCK;
  const auto message = message_of([&] { run::RunDirectory run(job_in(scratch / "run")); });
  flock_error = 0;
  CHECK(message.empty());
  CHECK(contains(read_whole_file(scratch.path() / "run" / "log.txt"),
                 "no lock on this file (No locks available)"));
}

TEST_CASE("a run directory that could not be opened is not locked") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  std::filesystem::create_directories(scratch.path() / "run" / "job.toml" / "in the way");
  CHECK(contains(message_of([&] { run::RunDirectory run(job); }), "job.toml"));
  std::filesystem::remove_all(scratch.path() / "run" / "job.toml");
  CHECK(message_of([&] { run::RunDirectory run(job); }).empty());
}

TEST_CASE("a line that cannot be logged ends nothing, and the run says why") {
  const test::ScratchDirectory scratch;
  std::filesystem::create_symlink("/dev/full", scratch / "log.txt");
  run::RunDirectory run(job_in(scratch.path()));
  run.log("hello");
  const auto message = run.trouble();
  CHECK(contains(message, (scratch / "log.txt").string()));
  CHECK(contains(message, "free some space"));
}

TEST_CASE("two processes cannot train in one run directory") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  {
    run::RunDirectory first(job);
    first.log("hello");
    CHECK(contains(message_of([&] { run::RunDirectory second(job); }), "another process"));
  }
  run::RunDirectory again(job);
  CHECK(contains(read_whole_file(scratch.path() / "run" / "log.txt"), "hello"));
  CHECK(config::load_job(scratch.path() / "run" / "job.toml", {}) == job);
}

TEST_CASE("of two starts at the same moment one has the run directory, and its log stays") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  const auto file = scratch.path() / "run" / "log.txt";
  // The other one locks the log between this one's opening and locking.
  std::optional<AppendFile> winner;
  before_flock = [&] {
    winner.emplace(file);
    CHECK(try_lock(winner->descriptor(), Lock::exclusive) == Locked::yes);
  };
  CHECK(contains(message_of([&] { run::RunDirectory run(job); }), "another process"));
  CHECK(winner->has_name());
  winner.reset();
  std::filesystem::remove(file);

  // The other one fails there, and removes the log.
  before_flock = [&] { std::filesystem::remove(file); };
  run::RunDirectory run(job);
  CHECK(std::filesystem::exists(file));
  CHECK(contains(message_of([&] { run::RunDirectory second(job); }), "another process"));
}

TEST_CASE("a run directory where another start has been since it was looked at is left as it is") {
  const test::ScratchDirectory scratch;
  const auto job = job_in(scratch / "run");
  const auto other = job_in(scratch / "run", {"schedule.steps=4"});
  const auto lose_to = [&](const std::function<void()>& others) {
    const auto found = run::traces_of(job.job.directory);
    before_flock = others;
    CHECK_THROWS_AS((run::RunDirectory{job, found}), run::RunChanged);
  };
  lose_to([&] {
    const run::RunDirectory run(other);
    write_whole_file(scratch / "run" / "metrics.jsonl", "{}\n");
  });
  CHECK(config::load_job(scratch / "run" / "job.toml", {}) == other);
  lose_to([&] { write_whole_file(scratch / "run" / "metrics.jsonl", "{}\n{}\n"); });
  lose_to([&] { save_at(other, 2); });
  lose_to([&] {
    std::filesystem::create_directories(scratch / "run" / "starts");
    write_whole_file(run::next_start_file(scratch / "run"), "{}");
  });
  CHECK(config::load_job(scratch / "run" / "job.toml", {}) == other);
  { const run::RunDirectory undisturbed(job, run::traces_of(job.job.directory)); }
  CHECK(config::load_job(scratch / "run" / "job.toml", {}) == job);

  // Of a directory that was not there, nothing stays but what the other has made.
  const auto young = job_in(scratch / "young");
  const auto found = run::traces_of(scratch / "young");
  before_flock = [&] { write_whole_file(scratch / "young" / "metrics.jsonl", "{}\n"); };
  CHECK_THROWS_AS((run::RunDirectory{young, found}), run::RunChanged);
  CHECK_FALSE(std::filesystem::exists(scratch / "young" / "log.txt"));
  CHECK_FALSE(std::filesystem::exists(scratch / "young" / "job.toml"));
}

TEST_CASE("checkpoint.directory is linked into the run directory, and is one run's alone") {
  const test::ScratchDirectory scratch;
  const auto elsewhere = scratch / "elsewhere";
  const auto job = job_in(scratch / "run", {"checkpoint.directory=" + elsewhere.string()});
  { const run::RunDirectory run(job); }
  save_at(job, 4);
  CHECK(std::filesystem::exists(elsewhere / "step-00000004" / checkpoint::manifest_name));
  CHECK(look_at(job, true).step == 4);
  CHECK(checkpoint::resolve(scratch / "run") == checkpoint::step_directory(scratch / "run", 4));
  checkpoint::prune(scratch / "run", 1);
  CHECK(look_at(job, true).step == 4);
  { const run::RunDirectory again(job); }  // resumed

  const auto other = job_in(scratch / "other", {"checkpoint.directory=" + elsewhere.string()});
  CHECK(contains(message_of([&] { run::RunDirectory{other}; }), "one run alone"));
  const auto moved = job_in(scratch / "run", {"checkpoint.directory=" + (scratch / "third").string()});
  CHECK(contains(message_of([&] { run::RunDirectory{moved}; }), "move them there"));
}
