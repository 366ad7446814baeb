// jobs/slurm/chain.sh: what it asks of sbatch, which is made up here. tests/slurm.sh runs it on a real one.
#include <doctest/doctest.h>

#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// What an sbatch that only writes down its words was asked for, a call each.
class Chain {
 public:
  Chain() {
    fs::create_directories(scratch_ / "bin");
    write_whole_file(scratch_ / "bin" / "sbatch",
                     fmt::format("#!/bin/sh\necho \"$@\" >> {}\necho 7\n", asked_.string()));
    fs::permissions(scratch_ / "bin" / "sbatch", fs::perms::owner_all);
  }

  test::Result start(const std::string& options) {
    fs::remove(asked_);
    auto result = test::shell(
        fmt::format("cd {} && PATH={}:$PATH RATPLUS={} jobs/slurm/chain.sh configs/quickstart/pretrain.toml "
                    "configs/quickstart/adapt-d16.toml {}",
                    RATPLUS_SOURCE_DIR, (scratch_ / "bin").string(), RATPLUS_PROGRAM, options));
    calls.clear();
    std::ifstream in(asked_);
    for (std::string line; std::getline(in, line);) calls.push_back(line);
    return result;
  }

  std::vector<std::string> calls;

 private:
  test::ScratchDirectory scratch_;
  fs::path asked_ = scratch_ / "asked";
};

}  // namespace

TEST_CASE("options of sbatch in one word and in two; the array is the sweep's alone") {
  Chain chain;
  for (const char* array : {"--array=0-3", "--array 0-3", "-a 0-3", "-a0-3"}) {
    CAPTURE(std::string(array));
    const auto result = chain.start(std::string("--partition gpu --time=20 ") + array + " --account me");
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    REQUIRE(chain.calls.size() == 3);
    for (const auto& call : chain.calls)
      CHECK(test::contains(call, "--parsable --partition gpu --time=20 --account me "));
    for (const int other : {0, 2}) CHECK_FALSE(test::contains(chain.calls[other], "0-3"));
    CHECK(test::contains(chain.calls[1], "0-3"));
    CHECK(test::contains(chain.calls[1], "--dependency=afterok:7"));
  }
  CHECK(chain.start("--sweep here -a 1").status == 0);
  CHECK(test::contains(chain.calls[2], "--table here "));
}

TEST_CASE("what is missing is named, and nothing is queued") {
  Chain chain;
  for (const char* options : {"--array", "-a", "--array --time=3", "--sweep"}) {
    CAPTURE(std::string(options));
    const auto result = chain.start(options);
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(test::contains(result.output, "needs a value"));
    CHECK(chain.calls.empty());
  }
}
