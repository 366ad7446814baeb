// What the benchmarks print where it means something, and what --help says of them.
#include <doctest/doctest.h>

#include <sstream>

#include "base/error.h"
#include "tests/cli/program.h"

using namespace ratplus;

TEST_CASE("data-bench: how long steps waited is told where they were taken at a pace") {
  const auto data = test::Playground::get().data.string();
  const auto fast =
      test::ratplus(fmt::format("data-bench {} --sequence-length 32 --batch 4 --seconds 0.1", data));
  CAPTURE(fast.output);
  CHECK(fast.status == 0);
  CHECK(test::count(fast.output, "the first step waited") == 2);
  CHECK_FALSE(test::contains(fast.output, "others"));
  const auto paced = test::ratplus(
      fmt::format("data-bench {} --sequence-length 32 --batch 4 --seconds 0.1 --pace 10000", data));
  CHECK(test::count(paced.output, "the first step waited") == 2);
  CHECK(test::count(paced.output, ", the others ") == 2);
}

TEST_CASE("the overview tells all that bench measures") {
  const auto help = test::ratplus("--help").output;
  CAPTURE(help);
  for (const char* part : {"operations", "training steps", "communication"})
    CHECK(test::contains(help, part));
}

TEST_CASE("sizes that cannot be timed are refused by name") {
  const auto data = test::Playground::get().data.string();
  const auto refused = [](const std::string& arguments, const std::string& part) {
    const auto result = test::ratplus(arguments);
    CAPTURE(result.output);
    CHECK(result.status != 0);
    CHECK(test::contains(result.output, part));
  };
  refused("data-bench " + data + " --batch 99999999999", "--batch 99999999999 of --sequence-length 4096");
  refused("data-bench " + data + " --sequence-length 0", "--sequence-length 0");
  refused("bench ops --device cpu --sequence-length 0", "--sequence-length 0 is not positive");
  refused("bench step job.toml --peak -1", "--peak -1");
}

TEST_CASE("bench ops: times and rates have three digits, however small the work") {
  const auto result = test::ratplus(
      "bench ops --device cpu --batch 1 --tokens 1 --width 2 --head-dim 2 --vocab 2 --threads 1");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  std::istringstream lines(result.output);
  int rows = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!test::contains(line, "product [") && !line.starts_with("attention")) continue;
    ++rows;
    CAPTURE(line);
    CHECK_FALSE(test::contains(line, "e-"));
    CHECK(test::contains(line, "FLOP/s"));
    CHECK((test::contains(line, " ns") || test::contains(line, " us")));
    CHECK_FALSE(test::contains(line, " 0.00"));
  }
  CHECK(rows == 8);
}
