// ratplus check as a user runs it: table, JSON, status, a rank that hangs, and what is left behind.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

std::string check(const fs::path& run, const std::string& more = "") {
  const auto& playground = test::Playground::get();
  return fmt::format("check {} --seconds 0.1 {} --set job.directory={} data.directory={} parallel.timeout=60",
                     playground.job.string(), more, run.string(), playground.data.string());
}

}  // namespace

TEST_CASE("check: one table of all ranks, and JSON that tells the same") {
  const test::ScratchDirectory scratch;
  const auto json = scratch / "check.json";
  const auto result = test::shell("RATPLUS_TEST_NODES=0,0,1 " +
                                  test::command(check(scratch / "run", "--json " + json.string()), 3));
  CAPTURE(result.output);
  CHECK((result.status == 0 || result.status == 5));  // on a busy machine ranks differ
  for (const char* part :
       {"on 3 ranks of 2 hosts: 3 x CPU", "products", "copies in memory", "link to a rank of its host",
        "link to another host", "checkpoint directory, write", "checkpoint directory, read",
        "clock, beside rank 0's", "memory that may be locked", "the same on all ranks: ", "ratplus ",
        "less than 4 MiB of data"}) {
    CAPTURE(part);
    CHECK(test::contains(result.output, part));
  }
  CHECK(test::contains(result.output, result.status == 0 ? "nothing stands out" : "stands out\n- "));
  const auto told = parse_json(read_whole_file(json));
  REQUIRE(told["ranks"].size() == 3);
  CHECK((told["findings"].empty()) == (result.status == 0));
  for (const auto& rank : told["ranks"]) CHECK(rank["values"]["products_operations_per_second"] > 1e8);
  CHECK(told["ranks"][0]["values"].contains("link_bytes_per_second"));
  CHECK(told["ranks"][0]["values"].contains("network_bytes_per_second"));
  CHECK_FALSE(told["ranks"][2]["values"].contains("link_bytes_per_second"));
  CHECK(told["cluster"]["nodes"] == 2);
  CHECK_FALSE(fs::exists(scratch / "run"));  // nothing is written but what was asked for
  // A plan is of GPUs.
  const auto plan =
      test::ratplus(fmt::format("plan {} --check {}", test::Playground::get().job.string(), json.string()));
  CHECK(plan.status == 1);
  CHECK(test::contains(plan.output, "was measured on \"CPU\""));
}

TEST_CASE("check: one rank has nothing to differ from, and what the job lacks stands out") {
  const test::ScratchDirectory scratch;
  const auto whole = test::ratplus(check(scratch / "run"));
  CAPTURE(whole.output);
  CHECK(whole.status == 0);
  CHECK(test::contains(whole.output, "nothing stands out"));
  const auto none = test::ratplus(check(scratch / "run") + " data.directory=nowhere");
  CAPTURE(none.output);
  CHECK(none.status == 5);
  CHECK(test::contains(none.output, "- nowhere"));
}

TEST_CASE("check: a rank that hangs is named, and ends it") {
  const test::ScratchDirectory scratch;
  const auto result = test::shell("RATPLUS_TEST_FAILURE=\"1:stall:checking of links:1\" " +
                                  test::command(check(scratch / "run") + " parallel.timeout=3", 2));
  CAPTURE(result.output);
  CHECK(result.status != 0);
  CHECK(result.seconds < 40);
  CHECK(test::contains(result.output, "rank 1"));
  CHECK(test::contains(result.output, "links"));
}

TEST_CASE("check: killed while it writes, it leaves nothing") {
  const test::ScratchDirectory scratch;
  fs::create_directories(scratch / "run");
  const auto result = test::shell(
      fmt::format("timeout -s KILL 4 {}", test::command(check(scratch / "run") + " --seconds 60")));
  CAPTURE(result.output);
  CHECK(fs::is_empty(scratch / "run"));
}
