// Datasets and runs on a file system that behaves as NFS without locks, Lustre and GPFS do (tests/support/network_files.c).
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "base/files/pending_file.h"
#include "lib/checkpoint/checkpoint.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;
using test::contains;

namespace {

/// The program with its files below this directory on the made network.
test::Result on_network(const fs::path& directory, const std::string& arguments, int ranks = 0) {
  return test::shell(fmt::format("export RATPLUS_TEST_NETWORK_FILES={} LD_PRELOAD={}; {}", directory.string(),
                                 NETWORK_FILES, test::command(arguments, ranks)));
}

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename().string());
  return names;
}

}  // namespace

TEST_CASE("a dataset is made, and replaced, on a network file system") {
  const test::ScratchDirectory scratch;
  std::ofstream(scratch / "a.txt") << "one text, and some words of it\n";
  std::ofstream(scratch / "b.txt") << "another text, in the place of the first\n";
  const auto data = scratch / "data";
  const auto prepare = [&](const std::string& text) {
    return fmt::format(
        "prepare {} --output {} --train-tokenizer --vocab-size 280 --validation-fraction 0 --force",
        (scratch / text).string(), data.string());
  };
  for (const char* text : {"a.txt", "b.txt"}) {
    const auto made = on_network(scratch.path(), prepare(text));
    CAPTURE(made.output);
    REQUIRE(made.status == 0);
    const auto whole = on_network(scratch.path(), "inspect " + data.string() + " --text 0,6");
    CHECK(whole.status == 0);
    CHECK(contains(whole.output, "verified"));
  }
  for (const auto& name : names_in(data)) CHECK_FALSE(name.starts_with(".nfs"));
}

TEST_CASE("a run is trained, pruned, resumed and evaluated on a network file system as elsewhere") {
  const test::ScratchDirectory scratch;
  const auto& playground = test::Playground::get();
  const auto train = [&](const fs::path& run, const std::string& more) {
    return fmt::format(
        "train {} --set job.directory={} data.directory={} job.threads=1 schedule.steps=8 checkpoint.every=2 "
        "checkpoint.keep=2 {}",
        playground.job.string(), run.string(), playground.data.string(), more);
  };
  const auto there = scratch / "network" / "run", here = scratch / "here";
  fs::create_directories(scratch / "network");
  for (const bool background : {false, true}) {
    CAPTURE(background);
    const auto more = fmt::format("checkpoint.background={} ", background);
    REQUIRE(test::ratplus(train(here, more), 2).status == 0);
    const auto first = on_network(scratch / "network", train(there, more + "--stop-after 5"), 2);
    CAPTURE(first.output);
    REQUIRE(first.status == 0);
    const auto second = on_network(scratch / "network", train(there, more + "--resume"), 2);
    CAPTURE(second.output);
    REQUIRE(second.status == 0);
    CHECK(test::state_of(there) == test::state_of(here));
    CHECK(contains(read_whole_file(there / "log.txt"), "no lock on this file"));
    // What was pruned is gone whole: an open file would have kept its directory.
    CHECK(names_in(there / "checkpoints") == std::set<std::string>{"step-00000006", "step-00000008"});
    const auto evaluated = on_network(scratch / "network", fmt::format("eval {} --json {}", there.string(),
                                                                       (there / "evaluation.json").string()));
    CHECK(evaluated.status == 0);
    const auto converted = on_network(
        scratch / "network",
        fmt::format("convert {} {}", there.string(), (scratch / "network" / "weights.safetensors").string()));
    CHECK(converted.status == 0);
    const auto checked = on_network(
        scratch / "network", fmt::format("check {} --seconds 0.1 --set job.directory={} data.directory={}",
                                         playground.job.string(), there.string(), playground.data.string()));
    CAPTURE(checked.output);
    CHECK((checked.status == 0 || checked.status == 5));  // 5: this machine's own
    for (const auto& run : {there, here}) fs::remove_all(run);
    fs::remove(scratch / "network" / "weights.safetensors");
  }
}
