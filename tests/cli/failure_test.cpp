// A rank that dies or hangs ends the job, soon and with one message.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "lib/checkpoint/checkpoint.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// Processes of this machine that were started with this text among their arguments.
int processes_with(const std::string& text) {
  int found = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    std::ifstream file(entry.path() / "cmdline");
    const std::string arguments{std::istreambuf_iterator<char>(file), {}};
    if (test::contains(arguments, text)) ++found;
  }
  return found;
}

std::string train_arguments(const fs::path& run, const std::string& settings) {
  const auto& playground = test::Playground::get();
  return fmt::format("train {} --set job.directory={} data.directory={} {}", playground.job.string(),
                     run.string(), playground.data.string(), settings);
}

/// A run on 3 ranks in which one fails as RATPLUS_TEST_FAILURE says; checks what is so for every failure.
test::Result run_failing(const fs::path& run, const std::string& failure, const std::string& settings) {
  auto result = test::shell(fmt::format("RATPLUS_TEST_FAILURE=\"{}\" {}", failure,
                                        test::command(train_arguments(run, settings), 3)));
  CAPTURE(result.output);
  CHECK(result.status != 0);
  CHECK(test::count(result.output, "ratplus: ") == 1);
  CHECK(test::count(result.output, "all ranks end") == 1);
  CHECK(processes_with(run.string()) == 0);
  return result;
}

}  // namespace

TEST_CASE("a rank that is killed ends the job at once, with one message of rank, host and operation") {
  // With a timeout that the test would not live to see: it is not what ends these.
  const std::string settings = "parallel.shard=full parallel.timeout=600";
  for (const char* operation : {"forward of blocks.1", "backward of blocks.1", "all_gather of blocks.2",
                                "reduce_scatter of blocks.1", "saving of part-00001.h5"}) {
    CAPTURE(std::string(operation));
    const test::ScratchDirectory scratch;
    const auto run = scratch / "run";
    const auto result = run_failing(run, fmt::format("1:kill:{}:2", operation), settings);
    CAPTURE(result.output);
    CHECK(test::contains(result.output, "ratplus: rank 1 on "));
    CHECK(test::contains(result.output, fmt::format("died in {};", operation)));
    CHECK(result.seconds < 30);
  }
}

TEST_CASE("the root may be the one that is killed, and replicas notice it too") {
  const test::ScratchDirectory scratch;
  const auto result = run_failing(scratch / "run", "0:kill:all_reduce of blocks.0:2", "parallel.shard=none");
  CAPTURE(result.output);
  CHECK(test::contains(result.output, "ratplus: rank 0 on "));
  CHECK(test::contains(result.output, "died in all_reduce of blocks.0;"));
}

TEST_CASE("a rank that hangs ends the job within the timeout, and the message says where it is") {
  for (const char* operation : {"forward of blocks.1", "backward of blocks.2", "saving of part-00001.h5"}) {
    CAPTURE(std::string(operation));
    const test::ScratchDirectory scratch;
    const auto result = run_failing(scratch / "run", fmt::format("1:stall:{}:2", operation),
                                    "parallel.shard=full parallel.timeout=2");
    CAPTURE(result.output);
    CHECK(test::contains(result.output, " has waited 2 s (parallel.timeout) in "));
    CHECK(test::contains(result.output, fmt::format("rank 1 has been at {} for ", operation)));
    CHECK(result.seconds < 30);
  }
}

TEST_CASE("what was saved before a rank died while saving is whole, and the run goes on from it") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  run_failing(run, "1:kill:saving of part-00001.h5:2", "parallel.shard=full");
  CHECK(fs::exists(checkpoint::step_directory(run, 5) / "manifest.json"));
  CHECK(!fs::exists(checkpoint::step_directory(run, 10)));
  const auto resumed = test::ratplus(train_arguments(run, "parallel.shard=full") + " --resume", 3);
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  REQUIRE(test::ratplus(train_arguments(scratch / "undisturbed", "parallel.shard=full"), 3).status == 0);
  CHECK(test::losses(run) == test::losses(scratch / "undisturbed"));
}
