// ratplus plan as a user runs it: text, table, JSON, mistakes.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;

namespace {

std::string config(const std::string& name) {
  return std::string(RATPLUS_SOURCE_DIR) + "/configs/" + name + ".toml";
}

void check_says(const std::string& arguments, int status, const std::vector<std::string>& parts) {
  CAPTURE(arguments);
  const auto result = test::ratplus("plan " + arguments);
  CAPTURE(result.output);
  CHECK(result.status == status);
  CHECK(result.seconds < 10);
  for (const auto& part : parts) {
    CAPTURE(part);
    CHECK(test::contains(result.output, part));
  }
}

}  // namespace

TEST_CASE("a plan tells memory, time and length") {
  check_says(config("pretrain/1b") + " --gpu H100", 0,
             {"1 node of 8 x NVIDIA H100 80GB SXM", "1474922496 parameters", "1 replica x 8 shards",
              "16 micro-batches of 4 x 4096", "77.0", "dense attention", "of peak", "52453 steps",
              "GPU hours", "checkpoints: 16.5 GiB each, at most 3", "cautions"});
  check_says(config("finetune/1b"), 0, {"schedule.epochs is of data"});
}

TEST_CASE("a table has a line for each number of nodes, and says why one cannot be") {
  check_says(config("pretrain/1b") + " --table 1,2,3 --gpu h200", 0,
             {"\n1          8        16", "\n2         16         8", "\n3         24     below",
              "- 3 nodes: ", "data.batch = 512 is not divisible by 24 ranks"});
  check_says(config("pretrain/1b") + " --table 3,5", 1, {"runs on none of these numbers of nodes"});
}

TEST_CASE("the JSON has what the text has") {
  const test::ScratchDirectory scratch;
  const auto file = scratch / "plan.json";
  const auto job = config("pretrain/7b");
  check_says(job + " --nodes 2 --gpu h200 --json " + file.string(), 0, {});
  const auto plan = parse_json(read_whole_file(file));
  CHECK(plan["parameters"] == 7'647'531'008);
  CHECK(plan["fits"] == true);
  CHECK(plan["replicas"] == 2);
  CHECK(plan["shards"] == 8);
  std::int64_t bytes = 0;
  for (const auto& [part, size] : plan["memory"].items()) bytes += size.get<std::int64_t>();
  CHECK(plan["memory_bytes"] == bytes);
  double seconds = plan["waiting_seconds"].get<double>() + plan["slowing_seconds"].get<double>();
  for (const auto& part : plan["work"]) seconds += part["seconds"].get<double>();
  CHECK(plan["step_seconds"].get<double>() == doctest::Approx(seconds));
  CHECK(plan["tokens_per_second"].get<double>() * plan["step_seconds"].get<double>() ==
        doctest::Approx(768 * 4096));

  check_says(job + " --gpus-per-node 2 --json " + file.string(), 1,
             {"7b.toml: the job needs", "fits (", "77.0"});
  const auto large = parse_json(read_whole_file(file));
  CHECK(large["fits"] == false);
  CHECK(!large["way_to_fit"].get<std::string>().empty());
  CHECK(!large.contains("step_seconds"));
}

TEST_CASE("mistakes in a plan's command line") {
  const auto job = config("pretrain/1b");
  check_says("", 2, {"a job file is missing"});
  check_says("nosuch.toml", 1, {"cannot read nosuch.toml"});
  check_says(job + " --gpu h1000", 2, {"known are a100-40gb, a100, h100, h200, b200"});
  check_says(job + " --nodes 0", 2, {"--nodes and --gpus-per-node are at least 1"});
  check_says(job + " --nodes 1000000", 2, {"more than 1048576 GPUs"});
  check_says(job + " --table 1,,2", 2, {"--table 1,,2 is no list"});
  check_says(job + " --network 0", 2, {"--network is in GB/s, from 0.01 to 100000"});
  check_says(job + " --json nosuch/plan.json", 1, {"there is no directory nosuch"});
  check_says(job + " --set parallel.shard=fll", 1, {"parallel.shard must be"});
  check_says(config("quickstart/pretrain"), 1, {"job.device = \"cpu\"", "--set job.device=cuda"});
}

TEST_CASE("plan --tune lists the fastest settings, and --set takes its words") {
  const auto tuned = test::ratplus("plan " + config("pretrain/7b") +
                                   " --gpu h200 --gpus-per-node 4 --tune --set data.batch=16");
  CAPTURE(tuned.output);
  REQUIRE(tuned.status == 0);
  const auto at = tuned.output.find("\n1: --set ");
  REQUIRE(at != std::string::npos);
  const auto words = tuned.output.substr(at + 4, tuned.output.find('\n', at + 1) - at - 4);
  CHECK(test::contains(words, "parallel.shard=optimizer"));
  CHECK(test::contains(words, "data.micro_batch=2"));
  CHECK(test::contains(tuned.output, "\n10: --set "));
  CHECK_FALSE(test::contains(tuned.output, "\n11: --set "));
  const auto plan = test::ratplus("plan " + config("pretrain/7b") + " --gpu h200 --gpus-per-node 4 " + words +
                                  " data.batch=16");
  CAPTURE(plan.output);
  CHECK(plan.status == 0);
  check_says(config("pretrain/7b") + " --tune --table 1,2", 2, {"--tune is of one cluster"});
  check_says(config("pretrain/7b") + " --check missing.json --nodes 2", 2, {"--check has the cluster"});
  check_says(
      config("pretrain/7b") +
          " --set parallel.shard=auto data.micro_batch=auto data.batch=16 --gpus-per-node 4 --gpu h200",
      0, {"chosen: data.micro_batch=2", "parallel.shard=optimizer", "1 replica x 4 shards"});
}

TEST_CASE("\"auto\" is chosen when training starts, and the run holds the choice") {
  const test::ScratchDirectory scratch;
  const auto& playground = test::Playground::get();
  const auto result = test::ratplus(
      fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=2 parallel.shard=auto "
                  "data.micro_batch=auto",
                  playground.job.string(), (scratch / "run").string(), playground.data.string()),
      2);
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::contains(result.output, "chosen for CPUs: data.micro_batch=1 parallel.shard=none"));
  const auto kept = read_whole_file(scratch / "run/job.toml");
  CHECK(test::contains(kept, "micro_batch = 1\n"));
  CHECK(test::contains(kept, "shard = \"none\"\n"));
}
