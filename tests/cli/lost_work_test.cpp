// What must not cost a run its work: signals that come twice, readers who leave, files without room, held-out parts that
// cannot be read, batches that predict nothing, a process killed after its last save.
#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "data/dataset/manifest.h"
#include "data/dataset/shard.h"
#include "lib/run/run_end.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

std::string arguments(const fs::path& run, const std::string& more = "", const fs::path& data = {}) {
  const auto& playground = test::Playground::get();
  return fmt::format("train {} --set job.directory={} data.directory={} job.threads=1 {}",
                     playground.job.string(), run.string(), (data.empty() ? playground.data : data).string(),
                     more);
}

/// A run of 20 slow steps, one of which is logged before `then`, which knows it as $!.
test::Result disturbed(const fs::path& run, const std::string& then, const std::string& before = "") {
  return test::shell(
      fmt::format("{} RATPLUS_TEST_FAULT=0:slow:0.1:1 {} & until grep -q step {}/metrics.jsonl; do sleep "
                  "0.05; done 2>/dev/null; {}; wait $!",
                  before, test::command(arguments(run)), run.string(), then));
}

fs::path copy_of_data(const fs::path& to) {
  fs::copy(test::Playground::get().data, to, fs::copy_options::recursive);
  return to;
}

/// A dataset whose held-out part is documents without text, or whose training part begins with `empty` of them.
fs::path dataset(const fs::path& directory, int empty, bool empty_validation) {
  data::ShardInfo shared{.vocab_size = 400, .end_of_text = 2, .tokenizer = "test"};
  data::Manifest manifest{.vocab_size = 400,
                          .end_of_text = 2,
                          .tokenizer = "test",
                          .tokenizer_file = {},
                          .source = {},
                          .sample_length = 0,
                          .train = {},
                          .validation = {}};
  fs::create_directories(directory);
  const auto write = [&](const std::string& name, int empties, std::int32_t texts) {
    data::ShardWriter writer(directory / name, shared, {.compression = 0, .chunk_tokens = 64});
    for (int i = 0; i < empties; ++i) writer.add_document({});
    for (std::int32_t d = 0; d < texts; ++d) writer.add_document(std::vector<std::int32_t>(40, 3 + d));
    const auto info = writer.finish();
    return data::ManifestShard{name, info.tokens, info.documents};
  };
  manifest.train.push_back(write("train-00000.h5", empty, 200));
  manifest.validation.push_back(
      write("validation-00000.h5", empty_validation ? 5000 : 0, empty_validation ? 0 : 200));
  data::write_manifest(directory, manifest);
  return directory;
}

}  // namespace

TEST_CASE("one request to stop may come twice: the run is saved all the same") {
  for (const std::string signals :
       {"-TERM $!; kill -TERM", "-TERM $!; kill -INT", "-INT $!; kill -INT", "-HUP", "-USR2", "-XCPU"}) {
    CAPTURE(signals);
    const test::ScratchDirectory scratch;
    const auto result = disturbed(scratch / "run", fmt::format("kill {} $!", signals));
    CAPTURE(result.output);
    CHECK(result.status == 75);
    CHECK(test::contains(result.output, "continue with --resume"));
    const auto end = run::read_run_end(scratch / "run");
    REQUIRE(end);
    CHECK(end->how == run::RunEnd::How::stopped);
    CHECK(fs::is_directory(end->checkpoint));
  }
}

TEST_CASE("a hang-up that is ignored (nohup) stops nothing") {
  const test::ScratchDirectory scratch;
  const auto result = disturbed(scratch / "run", "kill -HUP $!", "trap \"\" HUP;");
  CAPTURE(result.output);
  CHECK(result.status == 0);
}

TEST_CASE("a reader of the output who leaves, and an output without room, end no training") {
  for (const std::string to : {"| head -n 1", ">/dev/full", ">&-", "2>/dev/full", "2>&- >&-"}) {
    CAPTURE(to);
    const test::ScratchDirectory scratch;
    const auto run = scratch / "run";
    test::shell(fmt::format("{} {}", test::command(arguments(run)), to));
    const auto end = run::read_run_end(run);
    REQUIRE(end);
    CHECK(end->how == run::RunEnd::How::finished);
    CHECK(test::metrics(run, "step").size() == 20);
  }
}

TEST_CASE("a log without room ends no training") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  fs::create_directories(run);
  fs::create_symlink("/dev/full", run / "log.txt");
  const auto result = test::ratplus(arguments(run));
  CAPTURE(result.output);
  CHECK(result.status == 0);
  const auto end = run::read_run_end(run);
  CHECK(end->how == run::RunEnd::How::finished);
  CHECK(test::contains(end->message, "log.txt"));
}

TEST_CASE("a held-out part that cannot be read, or predicts nothing, is found before the first step") {
  const test::ScratchDirectory scratch;
  const auto damaged = copy_of_data(scratch / "damaged");
  const auto shard = damaged / "validation-00000.h5";
  auto bytes = read_whole_file(shard);
  bytes[bytes.size() / 2] ^= 0x10;
  std::ofstream(shard, std::ios::binary) << bytes;
  const auto unreadable = test::ratplus(arguments(scratch / "a", "", damaged));
  CAPTURE(unreadable.output);
  CHECK(unreadable.status == 1);
  CHECK(test::contains(unreadable.output, "validation-00000.h5"));
  CHECK_FALSE(test::contains(unreadable.output, "step 1/20"));

  const auto silent = dataset(scratch / "silent", 0, true);
  const auto nothing = test::ratplus(arguments(scratch / "b", "", silent));
  CAPTURE(nothing.output);
  CHECK(nothing.status == 1);
  CHECK(test::contains(nothing.output, "no position of 7 held-out sequences counts"));
  CHECK_FALSE(test::contains(nothing.output, "step 1/20"));
}

TEST_CASE("an error in the middle of a run is thrown once the steps before it are saved") {
  const test::ScratchDirectory scratch;
  const auto data = copy_of_data(scratch / "data");
  const auto run = scratch / "run";
  // Overwritten while the run reads it: the shard is noticed to have changed at a later batch.
  const auto result = test::shell(fmt::format(
      "RATPLUS_TEST_FAULT=0:slow:0.05:1 {} & until grep -q step {}/metrics.jsonl; do sleep 0.05; done "
      "2>/dev/null; truncate -s 100 {}/train-00000.h5; wait $!",
      test::command(arguments(run, "checkpoint.every=0", data)), run.string(), data.string()));
  CAPTURE(result.output);
  CHECK(result.status == 1);
  CHECK(test::contains(result.output, "is saved: --resume continues from it"));
  fs::remove_all(data);
  copy_of_data(data);
  const auto again = test::ratplus(arguments(run, "checkpoint.every=0", data) + " --resume");
  CAPTURE(again.output);
  CHECK(again.status == 0);
  CHECK_FALSE(test::contains(again.output, "starting at the beginning"));
}

TEST_CASE("a batch that predicts nothing is left out, on any number of ranks, and the run goes on") {
  const test::ScratchDirectory scratch;
  const auto data = dataset(scratch / "data", 12 * 32 + 1, false);  // the first batch
  for (const int ranks : {1, 3}) {
    const auto run = scratch / fmt::format("run-{}", ranks);
    const auto result = test::ratplus(arguments(run, "", data), ranks);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    CHECK(test::contains(result.output, "warning: step 1: no position of its batch counts"));
    const auto steps = test::metrics(run, "step");
    REQUIRE(steps.size() == 20);
    const auto first = parse_json(steps[0]);
    for (const auto& update : first["updates"]) {
      CHECK(update["loss"].is_null());
      CHECK(update["updated"] == false);
    }
    const auto last = parse_json(steps[19]);
    CHECK(last["skipped_updates"] == 2);
    CHECK(last["updates"][0]["loss"].is_number());
  }
}

TEST_CASE("a rank whose share of a batch predicts nothing takes part, and changes no result") {
  const test::ScratchDirectory scratch;
  // The first micro-batch of 4 windows, which is the first of three ranks' share of the first step.
  const auto data = dataset(scratch / "data", 4 * 32, false);
  const auto alone = scratch / "alone";
  REQUIRE(test::ratplus(arguments(alone, "data.micro_batch=4", data)).status == 0);
  const auto expected = test::losses(alone);
  for (const std::string shard : {"none", "optimizer", "full"}) {
    CAPTURE(shard);
    const auto run = scratch / shard;
    const auto result = test::ratplus(arguments(run, "data.micro_batch=4 parallel.shard=" + shard, data), 3);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    CHECK_FALSE(test::contains(result.output, "no position of its batch counts"));
    const auto losses = test::losses(run);
    REQUIRE(losses.size() == expected.size());
    for (std::size_t i = 0; i < losses.size(); ++i)
      CHECK(losses[i] == doctest::Approx(expected[i]).epsilon(1e-3));
    // Loss and gradient norm of the first step's two halves are means over the other ranks' positions.
    for (std::size_t i = 0; i < 2; ++i) CHECK(losses[i] == doctest::Approx(expected[i]).epsilon(1e-5));
  }
}

TEST_CASE(
    "a run killed after its last save is completed by --resume: validation, picture, record of the end") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(arguments(run)).status == 0);
  const auto validations = test::metrics(run, "validation");
  REQUIRE(validations.size() == 2);
  fs::remove(run / "starts" / "end-0001.json");
  fs::remove(run / "loss.svg");
  std::string kept;
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    const auto entry = parse_json(line);
    if (entry["kind"] != "validation" || entry["step"] != 20) kept += line + '\n';
  }
  write_whole_file(run / "metrics.jsonl", kept);
  const auto completed = test::ratplus(arguments(run) + " --resume");
  CAPTURE(completed.output);
  CHECK(completed.status == 0);
  CHECK_FALSE(test::contains(completed.output, "finished already"));
  CHECK(run::read_run_end(run)->how == run::RunEnd::How::finished);
  CHECK(fs::exists(run / "loss.svg"));
  CHECK(test::metrics(run, "validation") == validations);
  CHECK(test::contains(test::ratplus("watch --once " + run.string()).output, "finished"));
  CHECK(test::contains(test::ratplus(arguments(run) + " --resume").output, "finished already"));
}

TEST_CASE("--stop-after ends a start after so many steps, and leaves the schedule as it is") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto first = test::ratplus(arguments(run) + " --stop-after 7");
  CAPTURE(first.output);
  CHECK(first.status == 0);
  CHECK(test::contains(first.output, "stopped by --stop-after 7 after step 7; continue with --resume"));
  CHECK(test::metrics(run, "step").size() == 7);
  CHECK(test::ratplus(arguments(run) + " --resume --stop-after 5").status == 0);
  CHECK(test::metrics(run, "step").size() == 12);
  CHECK(test::ratplus(arguments(run) + " --resume --stop-after 500").status == 0);
  const auto whole = scratch / "whole";
  REQUIRE(test::ratplus(arguments(whole)).status == 0);
  CHECK(test::losses(run) == test::losses(whole));
  CHECK(test::state_of(run) == test::state_of(whole));
  for (const std::string steps : {"-1", "0", "many"})
    CHECK(test::ratplus(arguments(scratch / "none") + " --stop-after " + steps).status == 2);
}

TEST_CASE(
    "a start that is overtaken by another one, between looking and locking, loses nothing of the other's "
    "run") {
  const test::ScratchDirectory scratch;
  const auto data = copy_of_data(scratch / "data");
  const auto manifest = data / data::manifest_name;
  fs::rename(manifest, scratch / "manifest");
  for (const bool resume : {false, true}) {
    CAPTURE(resume);
    const auto run = scratch / (resume ? "resumed" : "run");
    // The first start waits in the reading of its data's manifest, a pipe, until the second is done.
    const auto result = test::shell(fmt::format(
        "cd {0}; rm -f ready go data/{1}; mkfifo data/{1}; "
        "(exec 8>data/{1}; touch ready; until [ -e go ]; do sleep 0.05; done; cat manifest >&8) & "
        "{2} >first.log 2>&1 & first=$!; until [ -e ready ]; do sleep 0.05; done; "
        "{3}; echo second: $?; cp {4}/metrics.jsonl kept; touch go; wait $first; echo first: $?; cat "
        "first.log",
        scratch.path().string(), data::manifest_name,
        test::command(arguments(run, "", data) + (resume ? " --resume" : "")), test::command(arguments(run)),
        run.string()));
    CAPTURE(result.output);
    CHECK(test::contains(result.output, "second: 0"));
    CHECK(test::contains(result.output, resume ? "first: 0" : "first: 1"));
    CHECK(test::contains(result.output, resume ? "finished already, 20 of 20 steps" : "holds a run already"));
    CHECK(read_whole_file(run / "metrics.jsonl") == read_whole_file(scratch / "kept"));
    CHECK_FALSE(test::contains(read_whole_file(run / "job.toml"), data.string()));
    const auto end = run::read_run_end(run);
    REQUIRE(end);
    CHECK(end->how == run::RunEnd::How::finished);
    CHECK_FALSE(fs::exists(run / "starts" / "start-0002.json"));
  }
}

TEST_CASE("a job file may come through a pipe") {
  const test::ScratchDirectory scratch;
  const auto job = test::Playground::get().job.string();
  for (const int ranks : {0, 1}) {
    const auto run = scratch / fmt::format("run{}", ranks);
    auto words = arguments(run, "schedule.steps=2");
    words.replace(words.find(job), job.size(), "/dev/stdin");
    const auto result = test::shell(fmt::format("cat {} | {}", job, test::command(words, ranks)));
    CAPTURE(result.output);
    CHECK(result.status == 0);
    CHECK(fs::exists(run / "job.toml"));
  }
}
