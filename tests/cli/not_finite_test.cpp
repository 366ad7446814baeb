// A loss or a gradient norm that is not finite: no update is made from it, on any rank. The job stops with the state
// before it, or goes on without that update; either way what follows is known bit for bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "lib/checkpoint/checkpoint.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

constexpr int steps = 10;

std::string train(const fs::path& run, const std::string& more = "") {
  const auto& playground = test::Playground::get();
  return fmt::format(
      "train {} --set job.directory={} data.directory={} schedule.steps={} job.threads=1 checkpoint.keep=99 "
      "{}",
      playground.job.string(), run.string(), playground.data.string(), steps, more);
}

test::Result with_fault(const std::string& fault, const std::string& arguments, int ranks) {
  return test::shell("RATPLUS_TEST_FAULT=" + fault + " " + test::command(arguments, ranks));
}

nlohmann::json read_json(const fs::path& file) {
  return parse_json(read_whole_file(file));
}

struct Layout {
  int ranks;
  const char* shard;
};

/// A run that stops in this update of this step, by a fault of the last rank; then goes on, without the fault, to the
/// undisturbed run's end.
void check_stop(const Layout& layout, const char* kind, int step, int update, const fs::path& undisturbed) {
  const std::string settings = fmt::format("parallel.shard={}", layout.shard);
  CAPTURE(layout.ranks);
  CAPTURE(settings);
  CAPTURE(std::string(kind));
  CAPTURE(step);
  CAPTURE(update);
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto fault = fmt::format("{}:{}:{}:{}", layout.ranks - 1, kind, step, update);
  const auto stopped = with_fault(fault, train(run, settings), layout.ranks);
  CAPTURE(stopped.output);
  CHECK(stopped.status == 3);
  CHECK(test::count(stopped.output, "ratplus: step ") == 1);
  const auto record = run / "not-finite" / fmt::format("step-{:08}-update-{}.json", step, update);
  for (const auto& part : {record.string(), checkpoint::step_directory(run, step - 1).string(),
                           std::string("--resume"), std::string("health.not_finite=skip")})
    CHECK(test::contains(stopped.output, part));

  // The state of before: of the whole step, unless its first update had been made and nothing was saved since.
  const auto last = checkpoint::step_directory(run, step - 1);
  CHECK(checkpoint::newest(run) == last);
  const auto info = checkpoint::read_info(last);
  CHECK(info.updates == 2 * (step - 1) + static_cast<int>(info.begun.size()));
  if (info.begun.empty())
    CHECK(test::state_of(last) == test::state_of(checkpoint::step_directory(undisturbed, step - 1)));
  if (update == 1) CHECK(info.begun.empty());
  CHECK(test::ratplus("inspect " + last.string()).status == 0);

  const auto entry = read_json(record);
  CHECK(entry["samples"].size() == 12);
  CHECK(entry["samples"][0]["index"] == 12 * (step - 1));
  CHECK(entry["samples"][11]["rank"] == layout.ranks - 1);
  CHECK(entry["ranks"].size() == static_cast<std::size_t>(layout.ranks));
  CHECK(entry[std::string(kind) == "loss" ? "loss" : "gradient_norm"].is_string());

  const auto resumed = test::ratplus(train(run, settings) + " --resume", layout.ranks);
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  CHECK(test::state_of(run) == test::state_of(undisturbed));
  CHECK(test::metrics(run, "step") == test::metrics(undisturbed, "step"));
  CHECK(test::metrics(run, "validation") == test::metrics(undisturbed, "validation"));
}

}  // namespace

TEST_CASE("stop: the state before the update is saved, and the run goes on from it bit for bit") {
  for (const Layout layout :
       {Layout{1, "none"}, Layout{2, "none"}, Layout{2, "full"}, Layout{2, "optimizer"}}) {
    const test::ScratchDirectory scratch;
    const auto undisturbed = scratch / "undisturbed";
    const auto settings = fmt::format("checkpoint.every=1 parallel.shard={}", layout.shard);
    REQUIRE(test::ratplus(train(undisturbed, settings), layout.ranks).status == 0);
    check_stop(layout, "gradient", 8, 1, undisturbed);
    check_stop(layout, "gradient", 8, 2, undisturbed);
    if (std::string(layout.shard) == "none") {
      check_stop(layout, "gradient", 6, 2, undisturbed);  // step 5 is saved already, and stays what it is
      check_stop(layout, "loss", 4, 1, undisturbed);
    }
  }
}

TEST_CASE("in the very first update, too") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  CHECK(with_fault("0:gradient:1:1", train(run), 2).status == 3);
  CHECK(checkpoint::newest(run) == checkpoint::step_directory(run, 0));
  REQUIRE(test::ratplus(train(run) + " --resume", 2).status == 0);
  REQUIRE(test::ratplus(train(scratch / "undisturbed"), 2).status == 0);
  CHECK(test::state_of(run) == test::state_of(scratch / "undisturbed"));
}

TEST_CASE("skip: the run is one in which that update was left out") {
  for (const Layout layout : {Layout{1, "none"}, Layout{2, "none"}, Layout{2, "full"}}) {
    for (const int update : {1, 2}) {
      CAPTURE(layout.ranks);
      CAPTURE(std::string(layout.shard));
      CAPTURE(update);
      const test::ScratchDirectory scratch;
      const auto fault = fmt::format("{}:gradient:8:{}", layout.ranks - 1, update);
      const auto settings = fmt::format("parallel.shard={}", layout.shard);
      const auto skipping =
          with_fault(fault, train(scratch / "skipping", settings + " health.not_finite=skip"), layout.ranks);
      CAPTURE(skipping.output);
      REQUIRE(skipping.status == 0);
      CHECK(test::count(skipping.output, "warning: step 8 (") == 1);
      CHECK(test::metrics(scratch / "skipping", "not_finite").size() == 1);
      const auto last = parse_json(test::metrics(scratch / "skipping", "step").back());
      CHECK(last["skipped_updates"] == 1);

      // The same from a run that stopped there, told by hand that this update is behind it.
      const auto expected = scratch / "expected";
      REQUIRE(with_fault(fault, train(expected, settings), layout.ranks).status == 3);
      auto info = checkpoint::read_info(checkpoint::step_directory(expected, 7));
      REQUIRE(info.begun.size() == static_cast<std::size_t>(update - 1));
      info.begun.push_back({.loss = 1, .gradient_norm = 1, .updated = false});
      if (update == 2) {  // the step's last: it is done
        const auto before = info;
        info.begun.clear();
        info.step = 8;
        info.directory = checkpoint::step_directory(expected, 8);
        test::write_again(before, info);
        fs::remove_all(before.directory);
      } else {
        checkpoint::write_manifest(info.directory, info);
      }
      const auto resumed = test::ratplus(train(expected, settings) + " --resume", layout.ranks);
      CAPTURE(resumed.output);
      REQUIRE(resumed.status == 0);
      CHECK(test::state_of(scratch / "skipping") == test::state_of(expected));
      CHECK(checkpoint::read_info(checkpoint::resolve(scratch / "skipping")).updates == 2 * steps - 1);
    }
  }
}

TEST_CASE("so many left out in a row stop the job, sparse and dense counted apart") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto settings = train(run, "health.not_finite=skip health.max_skips=3");
  const auto stopped = with_fault("1:gradient:4:2:9", settings, 2);
  CAPTURE(stopped.output);
  CHECK(stopped.status == 3);
  CHECK(test::count(stopped.output, "so no update was made; ") ==
        3);  // two warnings, and the reason of the end
  CHECK(test::count(stopped.output, "ratplus: step 6 (") == 1);
  const auto info = checkpoint::read_info(checkpoint::resolve(run));
  CHECK(info.updates == 8 + static_cast<int>(info.begun.size()));  // 3 whole steps, the first updates of two
  const auto resumed = test::ratplus(settings + " --resume", 2);
  REQUIRE(resumed.status == 0);
  const auto last = parse_json(test::metrics(run, "step").back());
  CHECK(last["skipped_updates"] == 2);  // of the whole run, though another process counted
}

TEST_CASE("updates left out in a row are counted through resumes") {
  const test::ScratchDirectory scratch;
  const auto settings = train(scratch / "run", "job.recipe=plain health.not_finite=skip health.max_skips=3");
  const auto first = with_fault("0:gradient:4:1:99", settings + " --stop-after 5", 1);
  CAPTURE(first.output);
  REQUIRE(first.status == 0);
  CHECK(checkpoint::read_info(checkpoint::resolve(scratch / "run")).left_out == std::vector<std::int64_t>{2});
  CHECK(test::contains(test::ratplus("inspect " + checkpoint::resolve(scratch / "run").string()).output,
                       "left out   2 updates in a row"));
  const auto second = with_fault("0:gradient:4:1:99", settings + " --resume --stop-after 2", 1);
  CAPTURE(second.output);
  CHECK(second.status == 3);
  CHECK(test::contains(second.output, "ratplus: step 6 ("));
  CHECK(test::contains(second.output,
                       "with --set health.max_skips above 3 leaves more such updates in a row out"));
  const auto more =
      with_fault("0:gradient:4:1:99",
                 train(scratch / "run", "job.recipe=plain health.not_finite=skip health.max_skips=5") +
                     " --resume --stop-after 1",
                 1);
  CAPTURE(more.output);
  CHECK(more.status == 0);
  const auto third = test::ratplus(settings + " --resume");
  CAPTURE(third.output);
  CHECK(third.status == 0);
  CHECK(checkpoint::read_info(checkpoint::resolve(scratch / "run")).left_out.empty());
}

TEST_CASE("a record of the samples that cannot be written costs neither the state nor a run that skips") {
  for (const char* mode : {"stop", "skip"}) {
    CAPTURE(std::string(mode));
    const test::ScratchDirectory scratch;
    const auto run = scratch / "run";
    fs::create_directories(run);
    write_whole_file(run / "not-finite", "a file where the directory would be");
    const auto result = with_fault("1:gradient:3:2", train(run, std::string("health.not_finite=") + mode), 2);
    CAPTURE(result.output);
    CHECK(test::contains(result.output, "could not be listed ("));
    const bool stops = std::string(mode) == "stop";
    CHECK(result.status == (stops ? 3 : 0));
    CHECK(checkpoint::newest(run) == checkpoint::step_directory(run, stops ? 2 : steps));
    REQUIRE(test::metrics(run, "not_finite").size() == 1);
    CHECK(parse_json(test::metrics(run, "not_finite").front())["file"].is_null());
  }
}

TEST_CASE("a fault that is none is refused, on all ranks") {
  const test::ScratchDirectory scratch;
  for (const char* fault : {"1:explode", "1:gradient:soon"}) {
    const auto result = with_fault(fault, train(scratch / "run"), 2);
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(test::contains(result.output, "RATPLUS_TEST_FAULT"));
  }
}

TEST_CASE("weights that an update has made infinite or NaN are not called a good state") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  // An eps that is 0 in float32: a gradient of 0 is divided by 0.
  const auto stopped = test::ratplus(train(run,
                                           "job.recipe=plain optimizer.beta1=0 optimizer.eps=1e-300 "
                                           "schedule.peak_lr=1000 schedule.warmup=0"));
  CAPTURE(stopped.output);
  CHECK(stopped.status == 3);
  CHECK(test::contains(stopped.output, "Weights were not finite before it, in the state that is saved in"));
  CHECK_FALSE(test::contains(stopped.output, "last good state"));
  const auto end = read_json(run / "starts" / "end-0001.json");
  CHECK(test::contains(end["message"], "the weights were not finite before it"));
}
