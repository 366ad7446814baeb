// ratplus report as a user runs it: where its files go.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <filesystem>
#include <fstream>

#include "base/files/pending_file.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// A run's directory as report reads it.
void make_run(const fs::path& run) {
  fs::create_directories(run);
  std::ofstream(run / "metrics.jsonl")
      << R"({"kind":"step","time":1,"step":1,"steps":2,"tokens":10,"updates":[{"pattern":"dense","loss":5}]})"
         "\n"
      << R"({"kind":"validation","step":1,"tokens":10,"results":[{"pattern":"dense","loss":4}]})"
         "\n";
}

std::string report(const std::string& arguments, int status = 0) {
  const auto result = test::ratplus("report " + arguments);
  CAPTURE(arguments);
  CAPTURE(result.output);
  CHECK(result.status == status);
  return result.output;
}

}  // namespace

TEST_CASE("a page of several runs takes the place of no other") {
  const test::ScratchDirectory scratch;
  // The first run lies in the second one's directory, so that beside it is where the second has its own page.
  const auto outer = scratch / "outer", inner = scratch / "outer/inner", third = scratch / "outer/third";
  for (const auto& run : {outer, inner, third}) make_run(run);
  report(outer.string());
  const auto own = read_whole_file(outer / "report.html"), picture = read_whole_file(outer / "loss.svg");
  CHECK(test::contains(report(inner.string() + " " + outer.string()), "inner+outer.html"));
  report(inner.string() + " " + third.string());
  CHECK(read_whole_file(outer / "report.html") == own);
  CHECK(read_whole_file(outer / "loss.svg") == picture);
  for (const char* file : {"inner+outer.html", "inner+outer.svg", "inner+third.html", "inner+third.svg"})
    CHECK(fs::exists(outer / file));
}

TEST_CASE("the same run twice is refused, by whatever spelling or link") {
  const test::ScratchDirectory scratch;
  const auto a = scratch / "a", b = scratch / "b", link = scratch / "link";
  make_run(a);
  make_run(b);
  fs::create_directory_symlink(a, link);
  CHECK(report(fmt::format("{0} {1} {0}", a.string(), b.string()), 1) ==
        fmt::format("ratplus: {}: is given twice; name each run once\n", a.string()));
  for (const auto& other : {a.string() + "/", (scratch / "b/../a").string(), link.string()}) {
    CHECK(report(fmt::format("{} {}", a.string(), other), 1) ==
          fmt::format("ratplus: {} and {} are the same run; name each run once\n", a.string(), other));
  }
  CHECK_FALSE(fs::exists(scratch / "a+a.html"));
  report(fmt::format("{} {}", a.string(), b.string()));
}

TEST_CASE("--output takes a directory, but not that of a run for the page of several") {
  const test::ScratchDirectory scratch;
  const auto a = scratch / "a", b = scratch / "b", place = scratch / "place";
  make_run(a);
  make_run(b);
  fs::create_directories(place);
  report(fmt::format("{} {} --output {}", a.string(), b.string(), place.string()));
  CHECK(fs::exists(place / "report.html"));
  CHECK(fs::exists(place / "loss.svg"));
  const auto refused = report(fmt::format("{} {} --output {}", a.string(), b.string(), a.string()), 1);
  CHECK(test::contains(refused, "is the directory of a run"));
  CHECK_FALSE(fs::exists(a / "report.html"));
  report(fmt::format("{} --output {}", a.string(), a.string()));
  CHECK(fs::exists(a / "report.html"));
  CHECK(test::contains(report(a.string() + " --output nowhere", 2), "is no directory for both"));
}

TEST_CASE("a job file where a run is wanted: the way out is the directory that it names") {
  const test::ScratchDirectory scratch;
  std::ofstream(scratch / "job.toml") << "[job]\nkind = \"pretrain\"\n";
  CHECK(test::contains(report((scratch / "job.toml").string(), 1), "the job.directory of its job file"));
}

TEST_CASE("the names of many runs make a file name that file systems take") {
  const test::ScratchDirectory scratch;
  std::string runs;
  for (int i = 0; i < 12; ++i) {
    const auto run = scratch / fmt::format("\u65e5\u672c-a-run-with-a-long-name-{}", i);
    make_run(run);
    runs += run.string() + " ";
  }
  report(runs);
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(scratch.path())) files += entry.is_regular_file() ? 1 : 0;
  CHECK(files == 2);
}
