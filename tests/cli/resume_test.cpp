// Runs that are stopped: by SIGTERM, SIGINT, SIGKILL, a full disk; each goes on to the undisturbed run's result.
#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "lib/checkpoint/checkpoint.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

std::string train_arguments(const fs::path& run, const std::string& more = "") {
  const auto& playground = test::Playground::get();
  return fmt::format("train {} --set job.directory={} data.directory={} {}", playground.job.string(),
                     run.string(), playground.data.string(), more);
}

using test::state_of;

void check_same_result(const fs::path& run, const fs::path& undisturbed) {
  CHECK(state_of(run) == state_of(undisturbed));
  CHECK(test::metrics(run, "step") == test::metrics(undisturbed, "step"));
  CHECK(test::metrics(run, "validation") == test::metrics(undisturbed, "validation"));
}

/// Starts a run in the background, sends the signal to every rank once `steps` steps are logged and, where the signal
/// leaves no time to save, a checkpoint is there; and waits.
test::Result interrupt(const fs::path& run, int ranks, const std::string& signal, std::size_t steps,
                       const std::string& more = "") {
  test::Result result;
  std::thread runner([&] { result = test::ratplus(train_arguments(run, more), ranks); });
  const auto due = [&] {
    return test::metrics(run, "step").size() >= steps && (signal != "KILL" || checkpoint::newest(run));
  };
  for (int tries = 0; tries < 2000 && !due(); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  test::shell(fmt::format("pkill -{} -f \"^{} train.*{}\"", signal, RATPLUS_PROGRAM, run.string()));
  runner.join();
  return result;
}

}  // namespace

TEST_CASE("a run that is stopped and resumed reaches the undisturbed result bit for bit") {
  for (const int ranks : {1, 2}) {
    CAPTURE(ranks);
    const test::ScratchDirectory scratch;
    REQUIRE(test::ratplus(train_arguments(scratch / "undisturbed", "job.threads=1"), ranks).status == 0);
    for (const std::string signal : {"TERM", "INT", "USR1", "KILL"}) {
      CAPTURE(signal);
      const auto run = scratch / ("run-" + signal);
      const auto stopped = interrupt(run, ranks, signal, 7);
      CAPTURE(stopped.output);
      CHECK(stopped.status != 0);
      CHECK(test::metrics(run, "step").size() < 20);
      if (signal != "KILL") {
        CHECK(test::contains(stopped.output, "--resume"));
        if (ranks == 1) CHECK(stopped.status == 75);
      }
      const auto resumed = test::ratplus(train_arguments(run) + " --resume", ranks);
      CAPTURE(resumed.output);
      REQUIRE(resumed.status == 0);
      CHECK(test::contains(resumed.output, "resumed at step"));
      check_same_result(run, scratch / "undisturbed");
    }
  }
}

TEST_CASE("a signal before the first step ends the run at once, with the status of one that can go on") {
  for (const std::string signal : {"TERM", "INT", "USR1"}) {
    CAPTURE(signal);
    const test::ScratchDirectory scratch;
    const auto job = (scratch / "job.toml").string();  // a pipe, so that the program waits for the job file
    const auto result = test::shell(
        fmt::format("mkfifo {0}; {1} & process=$!; "
                    // Until its handlers are there: SIGUSR1 is the tenth of the caught ones.
                    "tries=0; while kill -0 $process && ! grep -q \"SigCgt:.*[2367abef]..$\" "
                    "/proc/$process/status && [ $tries -lt 400 ]; do tries=$((tries + 1)); sleep 0.05; done; "
                    "kill -{2} $process; wait $process",
                    job, test::command("train " + job), signal));
    CAPTURE(result.output);
    CHECK(result.status == 75);
    CHECK(test::contains(result.output, "continue with --resume"));
  }
}

TEST_CASE("a signal to one rank of several before the first step is no crash") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  test::Result result;
  // The first rank stays where the run is set up, and the other waits for it.
  std::thread runner([&] {
    result = test::shell("RATPLUS_TEST_FAILURE=\"0:stall:connecting the ranks\" " +
                         test::command(train_arguments(run), 2));
  });
  for (int tries = 0; tries < 2000 && !fs::exists(run / "log.txt"); ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  test::shell(
      fmt::format("kill -USR1 $(pgrep -f \"^{} train.*{}\" | tail -1)", RATPLUS_PROGRAM, run.string()));
  runner.join();
  CAPTURE(result.output);
  CHECK(result.status == 75);
  CHECK(!test::contains(result.output, " died in "));
  CHECK(test::contains(result.output, "continue with --resume"));
}

TEST_CASE("a sharded run stops in order while weights are on their way") {
  // Units far above what MPI sends at once, so that the last update's gathers are under way when the signal is seen.
  const std::string wide = "model.width=256 model.layers=2 data.batch=4 ";
  for (const char* shard : {"optimizer", "full"}) {
    CAPTURE(std::string(shard));
    const test::ScratchDirectory scratch;
    const auto settings = wide + "parallel.shard=" + shard;
    REQUIRE(test::ratplus(train_arguments(scratch / "undisturbed", settings), 2).status == 0);
    const auto stopped = interrupt(scratch / "run", 2, "TERM", 3, settings);
    CAPTURE(stopped.output);
    CHECK(stopped.status == 75);
    CHECK(test::contains(stopped.output, "--resume"));
    CHECK(!test::contains(stopped.output, "signal 11"));
    REQUIRE(test::ratplus(train_arguments(scratch / "run", settings) + " --resume", 2).status == 0);
    check_same_result(scratch / "run", scratch / "undisturbed");
  }
}

TEST_CASE("a validation that a stop came before is made up for") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(train_arguments(run)).status == 0);
  const auto undisturbed = test::metrics(run, "validation");
  REQUIRE(undisturbed.size() == 2);  // at steps 10 and 20
  // As if the run had ended just after it saved step 10.
  fs::rename(checkpoint::step_directory(run, 20), scratch / "away");
  std::string lines;
  for (const auto& line : test::metrics(run, "step")) lines += line + "\n";
  write_whole_file(run / "metrics.jsonl", lines);
  fs::create_directories(checkpoint::step_directory(run, 10));
  REQUIRE(test::ratplus(train_arguments(scratch / "again", "checkpoint.keep=9")).status == 0);
  fs::remove_all(checkpoint::step_directory(run, 10));
  fs::copy(checkpoint::step_directory(scratch / "again", 10), checkpoint::step_directory(run, 10),
           fs::copy_options::recursive);
  fs::remove_all(checkpoint::step_directory(run, 15));
  const auto resumed = test::ratplus(train_arguments(run) + " --resume");
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  CHECK(test::metrics(run, "validation") == undisturbed);
}

TEST_CASE(
    "a damaged newest checkpoint is named and passed over, and the run reaches the undisturbed result") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(train_arguments(scratch / "undisturbed", "job.threads=1"), 2).status == 0);
  REQUIRE(test::ratplus(train_arguments(run, "job.threads=1"), 2).status == 0);
  const auto last = checkpoint::step_directory(run, 20);
  const auto part = last / checkpoint::file_name(1);
  auto bytes = read_whole_file(part);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write_whole_file(part, bytes);
  CHECK(test::ratplus("inspect " + last.string()).status == 1);
  // Settings that do not fit are told first, from the manifest: a large checkpoint takes minutes to verify.
  const auto refused = test::ratplus(train_arguments(run, "job.threads=1 job.seed=77") + " --resume", 2);
  CHECK(refused.status == 1);
  CHECK(test::contains(refused.output, last.string() + ": was made with other settings"));
  CHECK_FALSE(test::contains(refused.output, "damaged"));
  CHECK_FALSE(fs::exists(last.string() + ".damaged"));
  const auto resumed = test::ratplus(train_arguments(run, "job.threads=1") + " --resume", 2);
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  CHECK(test::contains(resumed.output, part.string() + ": damaged"));
  CHECK(test::contains(resumed.output, "resumed at step 15"));
  CHECK(fs::exists(last.string() + ".damaged"));
  CHECK(test::ratplus("inspect " + last.string()).status == 0);
  check_same_result(run, scratch / "undisturbed");
}

TEST_CASE("a checkpoint is verified while it is loaded, and damage that is found there is passed over") {
  const test::ScratchDirectory scratch;
  REQUIRE(test::ratplus(train_arguments(scratch / "undisturbed", "job.threads=1"), 2).status == 0);
  const auto stopped = [&](const fs::path& run) {
    const auto result = test::ratplus(train_arguments(run, "job.threads=1") + " --stop-after 12", 2);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    return checkpoint::step_directory(run, 12);
  };
  stopped(scratch / "whole");
  const auto whole = test::ratplus(train_arguments(scratch / "whole", "job.threads=1") + " --resume", 2);
  CAPTURE(whole.output);
  REQUIRE(whole.status == 0);
  CHECK(test::contains(whole.output, "loaded and verified "));
  CHECK(test::contains(whole.output, "resumed at step 12"));
  check_same_result(scratch / "whole", scratch / "undisturbed");
  for (const std::string damage : {"flipped", "cut", "missing", "manifest"}) {
    CAPTURE(damage);
    const auto run = scratch / damage;
    const auto last = stopped(run);
    const auto file = last / (damage == "manifest" ? "manifest.json" : checkpoint::file_name(1));
    auto bytes = read_whole_file(file);
    if (damage == "flipped") bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
    if (damage == "cut" || damage == "manifest") bytes.resize(bytes.size() / 2);
    damage == "missing" ? static_cast<void>(fs::remove(file)) : write_whole_file(file, bytes);
    const auto resumed = test::ratplus(train_arguments(run, "job.threads=1") + " --resume", 2);
    CAPTURE(resumed.output);
    REQUIRE(resumed.status == 0);
    CHECK(test::contains(resumed.output, "is not whole: renamed to step-00000012.damaged"));
    CHECK(test::contains(resumed.output, "resumed at step 10"));
    CHECK(fs::exists(last.string() + ".damaged"));
    check_same_result(run, scratch / "undisturbed");
  }
}

TEST_CASE("an adaptation, whose defaults are those of its own newest checkpoint, passes over damage, too") {
  const test::ScratchDirectory scratch;
  REQUIRE(test::ratplus(train_arguments(scratch / "first", "schedule.steps=2")).status == 0);
  const auto adapt = [&](const fs::path& run) {
    return train_arguments(
        run, fmt::format("job.threads=1 job.kind=adapt job.recipe=plain job.pattern=8,0,2 job.from={} "
                         "schedule.steps=8 checkpoint.every=3 checkpoint.keep=9",
                         (scratch / "first").string()));
  };
  REQUIRE(test::ratplus(adapt(scratch / "undisturbed")).status == 0);
  for (const std::string damage : {"cut", "missing", "manifest"}) {
    CAPTURE(damage);
    const auto run = scratch / damage;
    REQUIRE(test::ratplus(adapt(run) + " --stop-after 6").status == 0);
    const auto last = checkpoint::step_directory(run, 6);
    const auto file = last / (damage == "manifest" ? "manifest.json" : checkpoint::file_name(0));
    if (damage == "missing") {
      fs::remove(file);
    } else {
      fs::resize_file(file, fs::file_size(file) / 2);
    }
    const auto looked =
        test::ratplus("submit" + adapt(run).substr(5) + " --nodes 1 --ranks-per-node 1 --dry-run");
    CAPTURE(looked.output);
    CHECK(looked.status == 0);
    CHECK(test::contains(looked.output, "resumes at step 3 of 8"));
    const auto resumed = test::ratplus(adapt(run) + " --resume");
    CAPTURE(resumed.output);
    REQUIRE(resumed.status == 0);
    CHECK(test::contains(resumed.output, "is not whole: renamed to step-00000006.damaged"));
    CHECK(test::contains(resumed.output, "resumed at step 3"));
    check_same_result(run, scratch / "undisturbed");
  }
}

TEST_CASE("resuming on another number of ranks and another sharding goes on with the same losses") {
  const test::ScratchDirectory scratch;
  REQUIRE(test::ratplus(train_arguments(scratch / "undisturbed"), 1).status == 0);
  interrupt(scratch / "run", 2, "TERM", 4);
  const auto resumed =
      test::ratplus(train_arguments(scratch / "run", "parallel.shard=full") + " --resume", 3);
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  const auto here = test::losses(scratch / "run");
  const auto expected = test::losses(scratch / "undisturbed");
  REQUIRE(here.size() == expected.size());
  for (std::size_t i = 0; i < here.size(); i += 2)
    CHECK(here[i] == doctest::Approx(expected[i]).epsilon(1e-6));
}

TEST_CASE("a run on one mesh goes on with the same losses on another") {
  const test::ScratchDirectory scratch;
  REQUIRE(test::ratplus(train_arguments(scratch / "undisturbed"), 1).status == 0);
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(train_arguments(run, "parallel.shard=full parallel.shard_group=2"), 6).status == 0);
  fs::remove_all(checkpoint::step_directory(run, 20));  // written by six ranks, each its part, at step 15 too
  CHECK(fs::exists(checkpoint::step_directory(run, 15) / "part-00005.h5"));
  const auto resumed =
      test::ratplus(train_arguments(run, "parallel.shard=optimizer parallel.shard_group=2") + " --resume", 4);
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  const auto here = test::losses(run);
  const auto expected = test::losses(scratch / "undisturbed");
  REQUIRE(here.size() == expected.size());
  for (std::size_t i = 0; i < here.size(); i += 2)
    CHECK(here[i] == doctest::Approx(expected[i]).epsilon(1e-6));
}

TEST_CASE("a finished run says so, and an existing one is not overwritten") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(train_arguments(run, "schedule.steps=2")).status == 0);
  const auto again = test::ratplus(train_arguments(run, "schedule.steps=2"));
  CHECK(again.status == 1);
  CHECK(test::contains(again.output, "--resume"));
  const auto resumed = test::ratplus(train_arguments(run, "schedule.steps=2") + " --resume");
  CHECK(resumed.status == 0);
  CHECK(test::contains(resumed.output, "finished already"));
}

TEST_CASE("a run that is made longer goes on as one of that length from the start, bit for bit") {
  const test::ScratchDirectory scratch;
  const auto train = [&](const fs::path& run, const std::string& more, const std::string& options = "") {
    return test::ratplus(train_arguments(run, more) + options);
  };
  // Without the length, which lines of before the resume tell as it was then.
  const auto steps_of = [](const fs::path& run) {
    std::vector<std::string> lines;
    for (const auto& line : test::metrics(run, "step")) {
      auto entry = parse_json(line);
      entry.erase("steps");
      lines.push_back(json_dump(entry));
    }
    return lines;
  };
  struct Lengthened {
    std::string shape, before, after, options;
  };
  const std::vector<Lengthened> cases = {
      // Finished, at a step that is validated in the longer run, too.
      {"constant", "schedule.steps=10 schedule.warmup=0.3", "schedule.steps=20 schedule.warmup=0.15", ""},
      // Stopped where the decay of the shorter run was to begin; the length of the decay is another.
      {"wsd", "schedule.steps=12 schedule.warmup=0 schedule.decay=0.5",
       "schedule.steps=20 schedule.warmup=0 schedule.decay=0.4", " --stop-after 6"}};
  for (const Lengthened& lengthened : cases) {
    const std::string &shape = lengthened.shape, &before = lengthened.before, &after = lengthened.after,
                      &options = lengthened.options;
    CAPTURE(shape);
    const auto schedule = "job.threads=1 checkpoint.keep=9 schedule.shape=" + shape + " ";
    const auto run = scratch / shape;
    const auto whole = scratch / (shape + "-whole");
    REQUIRE(train(whole, schedule + after).status == 0);
    REQUIRE(train(run, schedule + before, options).status == 0);
    const auto longer = train(run, schedule + after, " --resume");
    CAPTURE(longer.output);
    REQUIRE(longer.status == 0);
    CHECK(test::contains(longer.output, "resumed at step"));
    CHECK(state_of(run) == state_of(whole));
    CHECK(steps_of(run) == steps_of(whole));
    CHECK(test::metrics(run, "validation") == test::metrics(whole, "validation"));
    const auto again = train(run, schedule + after, " --resume");
    CHECK(test::contains(again.output, "finished already, 20 of 20 steps"));
  }
  // The decay of the longer run is over.
  const auto refused = train(scratch / "wsd",
                             "job.threads=1 checkpoint.keep=9 schedule.shape=wsd schedule.steps=40 "
                             "schedule.warmup=0 schedule.decay=0.4",
                             " --resume");
  CHECK(refused.status == 1);
  CHECK(test::contains(refused.output, "before its decay, which began at step 12, and 20 steps were made"));
  CHECK(test::contains(refused.output,
                       "from a checkpoint of step 12 or before, once newer ones are moved away"));
  // That way out: from the checkpoint of step 10, and the steps after it are made again.
  const auto longer = std::string("job.threads=1 checkpoint.keep=9 schedule.shape=wsd schedule.steps=40 ") +
                      "schedule.warmup=0 schedule.decay=0.4";
  for (const int step : {15, 20}) {
    const auto newer = checkpoint::step_directory(scratch / "wsd", step);
    REQUIRE(fs::exists(newer));
    fs::rename(newer, scratch / fmt::format("away-{}", step));
  }
  const auto resumed = train(scratch / "wsd", longer, " --resume");
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  CHECK(test::contains(resumed.output, "resumed at step 10"));
  CHECK(test::contains(resumed.output,
                       "the run records a checkpoint of step 20, and the newest one here is of step 10"));
  REQUIRE(train(scratch / "wsd-40", longer).status == 0);
  CHECK(state_of(scratch / "wsd") == state_of(scratch / "wsd-40"));
  CHECK(steps_of(scratch / "wsd") == steps_of(scratch / "wsd-40"));
}

TEST_CASE("a full disk ends the run on all ranks with one message, and the last checkpoint stays") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(
              train_arguments(run, "schedule.steps=20") + " --set checkpoint.every=0 log.validate_every=0", 1)
              .status == 0);
  const auto before = state_of(run);
  const auto full = scratch / "full";
  // On the ranks, no file may grow past 200 blocks of 512 bytes: a checkpoint's parts do not fit.
  write_whole_file(scratch / "limited.sh",
                   "trap \"\" XFSZ\nulimit -f 200\nexec " + test::command(train_arguments(full)) + "\n");
  const auto result = test::shell(fmt::format("{} -n 2 sh {}", MPIEXEC, (scratch / "limited.sh").string()));
  CAPTURE(result.output);
  CHECK(result.status != 0);
  CHECK(test::contains(result.output, "step-00000005"));
  CHECK(!fs::exists(checkpoint::step_directory(full, 5)));
  CHECK(!fs::exists(checkpoint::step_directory(full, 5).string() + ".partial"));
  CHECK(state_of(run) == before);
}
