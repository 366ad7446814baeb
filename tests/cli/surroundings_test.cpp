// Runs in hostile surroundings: checkpoints whose file system is gone, directories of two owners, names that are no UTF-8,
// outputs that cannot be written.
#include <doctest/doctest.h>

#include <fstream>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/in_use.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

std::string arguments(const fs::path& run, const std::string& more = "") {
  const auto& playground = test::Playground::get();
  return fmt::format(
      "train {} --set job.directory={} data.directory={} job.threads=1 schedule.steps=6 "
      "checkpoint.every=2 {}",
      playground.job.string(), run.string(), playground.data.string(), more);
}

}  // namespace

TEST_CASE("--resume is refused where the run reports checkpoints that are missing") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto elsewhere = scratch / "elsewhere";
  const auto settings = fmt::format("checkpoint.directory={}", elsewhere.string());
  REQUIRE(test::ratplus(arguments(run, settings) + " --stop-after 5").status == 0);
  const auto metrics = read_whole_file(run / "metrics.jsonl");

  fs::rename(elsewhere, scratch / "unmounted");
  const auto dead = test::ratplus(arguments(run, settings) + " --resume");
  CAPTURE(dead.output);
  CHECK(dead.status == 1);
  CHECK(test::contains(dead.output, "is a link to " + elsewhere.string() + ", which is not there"));
  fs::create_directory(elsewhere);  // a mount point
  const auto empty = test::ratplus(arguments(run, settings) + " --resume");
  CAPTURE(empty.output);
  CHECK(empty.status == 1);
  CHECK(test::contains(empty.output, "the run reports one of step 5; mount its file system"));
  CHECK(read_whole_file(run / "metrics.jsonl") == metrics);

  fs::remove(elsewhere);
  fs::rename(scratch / "unmounted", elsewhere);
  CHECK(test::ratplus(arguments(run, settings) + " --resume").status == 0);
}

TEST_CASE("checkpoint.directory belongs to one run, from before its first step on") {
  const test::ScratchDirectory scratch;
  const auto both = fmt::format("checkpoint.directory={}", (scratch / "both").string());
  const auto first = arguments(scratch / "first", both);
  const auto second = arguments(scratch / "second", both);
  // The second begins while the first, which takes its time, has saved nothing.
  const auto result = test::shell(fmt::format(
      "RATPLUS_TEST_FAULT=0:slow:0.3:1 {} & until [ -e {} ]; do sleep 0.05; done; {}; echo second: "
      "$?; wait $!; echo first: $?",
      test::command(first), (scratch / "first" / "metrics.jsonl").string(), test::command(second)));
  CAPTURE(result.output);
  CHECK(test::contains(result.output, "belongs to the run " + (scratch / "first").string()));
  CHECK(test::contains(result.output, "second: 1"));
  CHECK(test::contains(result.output, "first: 0"));
  CHECK_FALSE(fs::exists(scratch / "second"));

  fs::copy(scratch / "first", scratch / "copy",
           fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(scratch / "copy" / "starts");  // so that it is not finished
  const auto copied = test::ratplus(arguments(scratch / "copy", both) + " --resume");
  CAPTURE(copied.output);
  CHECK(copied.status == 1);
  CHECK(test::contains(copied.output, "belongs to the run"));
  fs::rename(scratch / "first", scratch / "moved");
  fs::remove_all(scratch / "moved" / "starts");
  CHECK(test::ratplus(arguments(scratch / "moved", both) + " --resume").status == 0);
}

TEST_CASE("a checkpoint.directory that cannot be made leaves no run directory") {
  const test::ScratchDirectory scratch;
  const auto result =
      test::ratplus(arguments(scratch / "a" / "run", "checkpoint.directory=/proc/ratplus/here"));
  CAPTURE(result.output);
  CHECK(result.status == 1);
  CHECK(
      test::contains(result.output, "/proc/ratplus/here: cannot make this directory (checkpoint.directory)"));
  CHECK_FALSE(fs::exists(scratch / "a"));
}

TEST_CASE("a checkpoint that is read is not pruned, and one that was pruned is not called damaged") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(arguments(run, "checkpoint.keep=5")).status == 0);
  const auto old = checkpoint::step_directory(run, 2);
  {
    const checkpoint::InUse reading(old);
    checkpoint::prune(run, 1);
    CHECK(fs::exists(old));
    CHECK_FALSE(fs::exists(checkpoint::step_directory(run, 4)));
  }
  checkpoint::prune(run, 1);
  CHECK_FALSE(fs::exists(old));
  CHECK(fs::exists(checkpoint::step_directory(run, 6)));
  CHECK(test::contains(test::message_of([&] { checkpoint::InUse{old}; }),
                       "was removed while it was to be read"));
}

TEST_CASE("in a directory whose name is no UTF-8, runs are saved, resumed, reported and evaluated") {
  const test::ScratchDirectory scratch;
  const auto latin = scratch / "caf\xE9";
  fs::create_directory(latin);
  const auto in_it = [&](const std::string& command) {
    return test::shell(fmt::format("cd {} && {}", latin.string(), test::command(command)));
  };
  const auto stopped =
      in_it(arguments("run", "log.tensorboard=true checkpoint.export=bfloat16") + " --stop-after 3");
  CAPTURE(stopped.output);
  REQUIRE(stopped.status == 0);
  const auto resumed =
      in_it(arguments("run", "log.tensorboard=true checkpoint.export=bfloat16") + " --resume");
  CAPTURE(resumed.output);
  CHECK(resumed.status == 0);
  for (const std::string arguments :
       {"report {}/run", "watch --once {}/run", "inspect {}/run", "eval {}/run --micro-batch 4",
        "convert {}/run {}/w.safetensors", "inspect {}/w.safetensors"}) {
    CAPTURE(arguments);
    std::string command = arguments;
    for (auto at = command.find("{}"); at != std::string::npos; at = command.find("{}"))
      command.replace(at, 2, latin.string());
    const auto result = test::ratplus(command);
    CAPTURE(result.output);
    CHECK(result.status == 0);
  }
  const auto refused = test::ratplus(arguments(latin / "other"));
  CHECK(refused.status != 0);
  CHECK(test::contains(refused.output, "is not UTF-8"));
}

TEST_CASE("an output that cannot be written is an error of every command that prints its result") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(arguments(run)).status == 0);
  const auto& playground = test::Playground::get();
  for (const std::string& command :
       {std::string("--help"), std::string("--version"), "inspect " + run.string(), "report " + run.string(),
        "watch --once " + run.string(), "eval " + run.string(),
        "plan " + playground.job.string() + " --gpus-per-node 4 --set job.directory=a data.directory=b",
        "train " + playground.job.string() + " --print-config --set job.directory=a data.directory=b",
        "inspect " + playground.data.string(), std::string("bench --help")}) {
    CAPTURE(command);
    CHECK(test::ratplus(command).status == 0);
    for (const std::string to : {">/dev/full", ">&-"}) {
      CAPTURE(to);
      const auto result = test::shell(fmt::format("{} 2>&1 {}", test::command(command), to));
      CAPTURE(result.output);
      CHECK(result.status == 1);
      CHECK(test::count(result.output, "ratplus: ") == 1);
    }
    // Nobody is left to tell: no abort, no signal.
    const auto silent = test::shell(test::command(command) + " >/dev/full 2>/dev/full").status;
    CHECK(silent == 1);
  }
  CHECK(test::shell(test::command("inspect /nowhere") + " 2>/dev/full").status == 1);
  CHECK(test::shell(test::command("inspect /nowhere") + " 2>&-").status == 1);
}
