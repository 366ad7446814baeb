// No command speaks of "1 ranks".
#include <doctest/doctest.h>

#include <regex>

#include "base/error.h"
#include "base/units.h"
#include "tests/cli/program.h"

using namespace ratplus;

TEST_CASE("amounts of one and of several") {
  CHECK(counted(1, "rank") == "1 rank");
  CHECK(counted(0, "rank") == "0 ranks");
  CHECK(counted(std::size_t{12}, "rank") == "12 ranks");
  CHECK(counted(-1, "step") == "-1 steps");
  CHECK(counted(1, "batch", "batches") == "1 batch");
  CHECK(counted(2, "batch", "batches") == "2 batches");
}

TEST_CASE("what the commands print of one rank, thread, layer, head, shard, step, sequence, pattern") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto run = (scratch / "run").string(), job = playground.job.string(), data = playground.data.string();
  const auto set = fmt::format(
      "--set job.directory={} data.directory={} job.threads=1 model.layers=1 model.width=16 schedule.steps=1 "
      "log.validation_sequences=1",
      run, data);
  const std::regex wrong("(^|[^0-9.,/$-])1 (more )?([A-Za-z][A-Za-z-]*s)\\b");
  for (const auto& command :
       {fmt::format("plan {} {} --nodes 1 --gpus-per-node 1", job, set),
        fmt::format("submit {} {} --nodes 1 --ranks-per-node 1 --dry-run", job, set),
        fmt::format("train {} {}", job, set), "inspect " + run,
        fmt::format("inspect {}/checkpoints/step-00000001", run), "inspect " + data,
        fmt::format("eval {} --sequences 1", run), fmt::format("convert {} {}.safetensors", run, run),
        fmt::format("bench step {} {} --micro-batches 1", job, set),
        fmt::format("data-bench {} --seconds 0.1 --sequence-length 32 --batch 1", data), "report " + run}) {
    const auto result = test::ratplus(command);
    CAPTURE(command);
    CAPTURE(result.output);
    CHECK(result.status == 0);
    std::smatch found;
    const bool any = std::regex_search(result.output, found, wrong);
    CAPTURE(found.str());
    CHECK_FALSE(any);
  }
}
