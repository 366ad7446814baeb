// How a start of a run ended is told in its record, and seen at once by those who look at the run.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "lib/run/run_end.h"
#include "lib/run/start_files.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

std::string arguments(const fs::path& run, const std::string& more = "") {
  const auto& playground = test::Playground::get();
  return fmt::format("train {} --set job.directory={} data.directory={} job.threads=1 {}",
                     playground.job.string(), run.string(), playground.data.string(), more);
}

/// One process that is sent the signal once it has logged a step, of 20 that take 0.2 s each.
test::Result signalled(const fs::path& run, const std::string& signal) {
  return test::shell(
      fmt::format("RATPLUS_TEST_FAULT=0:slow:0.1:1 {} & until grep -q step {}/metrics.jsonl; do sleep 0.05; "
                  "done 2>/dev/null; kill -{} $!; wait $!",
                  test::command(arguments(run)), run.string(), signal));
}

nlohmann::json end_of(const fs::path& run, int number) {
  return parse_json(read_whole_file(run / "starts" / fmt::format("end-{:04}.json", number)));
}

/// What all who look at the run say; the page's part before its first table.
struct Seen {
  std::string watch, table, page;
};
Seen look_at(const fs::path& run) {
  const auto watch = test::ratplus("watch --once " + run.string());
  const auto report = test::ratplus("report " + run.string());
  CHECK(watch.status == 0);
  CHECK(report.status == 0);
  const auto page = read_whole_file(run / "report.html");
  const auto begin = page.find("<main>");
  return {watch.output, report.output, page.substr(begin, page.find("<table>") - begin)};
}

/// In lines of a terminal a sentence is broken.
std::string unbroken(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  return text;
}

}  // namespace

TEST_CASE("a run stopped by a signal says so until it is resumed") {
  for (const std::string signal : {"TERM", "USR1"}) {
    CAPTURE(signal);
    const test::ScratchDirectory scratch;
    const auto run = scratch / "run";
    const auto stopped = signalled(run, signal);
    CAPTURE(stopped.output);
    REQUIRE(stopped.status == 75);
    const auto end = end_of(run, 1);
    CHECK(end["how"] == "stopped");
    CHECK(end["signal"] == "SIG" + signal);
    const int step = end["step"];
    CHECK(step < 20);
    CHECK(fs::is_directory(end["checkpoint"].get<std::string>()));
    CHECK(test::contains(stopped.output, fmt::format("stopped by SIG{} after step {}", signal, step)));
    const auto said = fmt::format("stopped by SIG{} at step {}, saved; resume with --resume", signal, step);
    const auto seen = look_at(run);
    for (const auto& text : {seen.watch, seen.table, seen.page}) {
      CAPTURE(text);
      CHECK(test::contains(text, said));
    }
    CHECK_FALSE(test::contains(seen.watch, " left, ends about"));
    REQUIRE(test::ratplus(arguments(run) + " --resume").status == 0);
    CHECK(end_of(run, 2)["how"] == "finished");
    CHECK(end_of(run, 1) == end);
    const auto after = look_at(run);
    for (const auto& text : {after.watch, after.table, after.page})
      CHECK_FALSE(test::contains(text, "stopped by"));
    CHECK(test::contains(after.watch, "finished"));
  }
}

TEST_CASE("a killed run has told no end") {
  const test::ScratchDirectory scratch;
  CHECK(signalled(scratch / "run", "KILL").status == 137);
  CHECK(fs::exists(scratch / "run" / "starts" / "start-0001.json"));
  CHECK_FALSE(run::read_run_end(scratch / "run"));
  CHECK_FALSE(test::contains(look_at(scratch / "run").watch, "stopped"));
}

TEST_CASE("an update that is not finite stands at the top: step, what was not finite, the file of samples") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto file = run / "not-finite" / "step-00000008-update-2.json";
  REQUIRE(test::shell("RATPLUS_TEST_FAULT=1:gradient:8:2:1 " + test::command(arguments(run), 2)).status == 3);
  CHECK(end_of(run, 1)["how"] == "not_finite");
  const auto seen = look_at(run);
  for (const auto& text : {seen.watch, seen.table, seen.page}) {
    CAPTURE(text);
    CHECK(test::contains(unbroken(text), "stopped at step 8 (dense): loss "));
    CHECK(test::contains(unbroken(text), "and gradient norm nan are not both finite"));
  }
  CHECK(test::contains(seen.page, file.string()));
  CHECK(test::count(seen.page, file.string()) == 1);

  const auto skipping = scratch / "skipping";
  REQUIRE(test::shell("RATPLUS_TEST_FAULT=0:loss:8:1:2 " +
                      test::command(arguments(skipping, "health.not_finite=skip")))
              .status == 0);
  const auto page = look_at(skipping).page;
  CAPTURE(page);
  CHECK(test::contains(page, "2 updates were left out; the last in step 9 ("));
  CHECK(test::contains(page, "loss not finite"));
  CHECK(test::contains(page, (skipping / "not-finite" / "step-00000009-update-1.json").string()));
}

TEST_CASE("a failure is told with its message: one of all ranks, and of one that died") {
  const test::ScratchDirectory scratch;
  const auto full = scratch / "full";
  write_whole_file(scratch / "limited.sh",
                   "trap \"\" XFSZ\nulimit -f 200\nexec " + test::command(arguments(full)) + "\n");
  const auto result = test::shell(fmt::format("{} -n 2 sh {}", MPIEXEC, (scratch / "limited.sh").string()));
  CAPTURE(result.output);
  REQUIRE(result.status != 0);
  CHECK(end_of(full, 1)["how"] == "failed");
  CHECK(end_of(full, 1)["step"] >= 5);  // that is saved, maybe while the next goes on
  CHECK(test::contains(end_of(full, 1)["message"], "ulimit"));
  CHECK(test::contains(unbroken(look_at(full).watch), "failed after step "));
  CHECK(test::contains(read_whole_file(full / "log.txt"), "ulimit"));

  const auto died = scratch / "died";
  REQUIRE(test::shell("RATPLUS_TEST_FAILURE=\"1:kill:forward of blocks.1:20\" " +
                      test::command(arguments(died), 2))
              .status != 0);
  CHECK(end_of(died, 1)["how"] == "failed");
  CHECK(test::contains(look_at(died).page, "died in forward of blocks.1"));

  const auto young = scratch / "young";
  REQUIRE(test::shell("RATPLUS_TEST_FAILURE=\"1:kill:forward of blocks.1:1\" " +
                      test::command(arguments(young), 2))
              .status != 0);
  CHECK(
      test::contains(test::ratplus("watch --once " + young.string()).output, "failed before its first line"));
  CHECK(test::contains(test::ratplus("report " + young.string()).output, "the run failed: rank 1 on "));
}

TEST_CASE("a failure before the first step is told as any other, and the next start counts on") {
  for (const int ranks : {0, 2}) {
    CAPTURE(ranks);
    const test::ScratchDirectory scratch;
    const auto run = scratch / "run";
    const auto result = test::shell("RATPLUS_TEST_FAULT=0:explode " + test::command(arguments(run), ranks));
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(test::contains(read_whole_file(run / "log.txt"), "RATPLUS_TEST_FAULT"));
    const auto start = parse_json(read_whole_file(run / "starts" / "start-0001.json"));
    CHECK(start["step"].is_null());
    CHECK(start["hosts"].size() == 1);
    CHECK(test::contains(start["job"], run.string()));
    CHECK(end_of(run, 1)["how"] == "failed");
    CHECK(end_of(run, 1)["step"].is_null());
    CHECK(test::contains(end_of(run, 1)["message"], "RATPLUS_TEST_FAULT"));
    const auto seen = test::ratplus("watch --once " + run.string());
    CAPTURE(seen.output);
    CHECK(test::contains(seen.output, "failed before its first line"));
    CHECK(test::ratplus(arguments(run, "schedule.steps=2"), ranks).status == 0);
    CHECK(end_of(run, 2)["how"] == "finished");
  }
}

TEST_CASE("ends are those of the newest start; one that cannot be read is none") {
  const test::ScratchDirectory scratch;
  CHECK_FALSE(run::read_run_end(scratch.path()));
  fs::create_directories(scratch / "starts");
  const auto first = run::next_start_file(scratch.path());
  write_whole_file(first, "{}");
  CHECK(run::newest_start_file(scratch.path()) == first);
  CHECK(run::end_file(first).filename() == "end-0001.json");
  CHECK_FALSE(run::read_run_end(scratch.path()));
  run::write_run_end(first, {.how = run::RunEnd::How::failed, .step = 7, .message = "no \xff space"});
  const auto end = run::read_run_end(scratch.path());
  REQUIRE(end);
  CHECK(end->how == run::RunEnd::How::failed);
  CHECK(end->step == 7);
  CHECK(test::contains(end->message, " space"));
  CHECK(end->time > 1e9);
  for (const char* damaged : {"", "{", "[]", "{\"how\":\"dreamt\",\"time\":1}", "{\"how\":7}",
                              "{\"how\":\"failed\",\"time\":\"now\"}"}) {
    CAPTURE(std::string(damaged));
    write_whole_file(run::end_file(first), damaged);
    CHECK_FALSE(run::read_run_end(scratch.path()));
  }
  run::write_run_end(first, {});
  write_whole_file(run::next_start_file(scratch.path()), "{}");
  CHECK_FALSE(run::read_run_end(scratch.path()));
}
