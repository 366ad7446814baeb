// The same job on 1, 2, 3 and 4 ranks and in every sharding.
#include <doctest/doctest.h>

#include <cmath>

#include "kernels/error.h"
#include "tests/cli/program.h"

using namespace ratplus;

namespace {

std::vector<double> losses_of(int ranks, const std::string& shard) {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto result =
      test::ratplus(fmt::format("train {} --set job.directory={} data.directory={} parallel.shard={}",
                                playground.job.string(), run.string(), playground.data.string(), shard),
                    ranks);
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  return test::losses(run);
}

}  // namespace

TEST_CASE("losses and norms of 20 joint steps agree to 1e-6 over ranks and shardings") {
  const auto single = losses_of(1, "none");
  REQUIRE(single.size() == 20 * 2 * 2);
  CHECK(single.front() > single[single.size() - 4] + 0.2);  // it learns
  for (const int ranks : {2, 3, 4}) {
    for (const char* shard : {"none", "optimizer", "full"}) {
      CAPTURE(ranks);
      CAPTURE(std::string(shard));
      const auto here = losses_of(ranks, shard);
      REQUIRE(here.size() == single.size());
      double worst_loss = 0;
      double worst_norm = 0;
      for (std::size_t i = 0; i < single.size(); i += 2) {
        worst_loss = std::max(worst_loss, std::abs(here[i] / single[i] - 1));
        worst_norm = std::max(worst_norm, std::abs(here[i + 1] / single[i + 1] - 1));
      }
      CHECK(worst_loss < 1e-6);
      CHECK(worst_norm < 1e-4);  // of nearly cancelling sums: less exact than the losses
      MESSAGE(ranks, " ranks, ", std::string(shard), ": losses agree to ", worst_loss, ", norms to ",
              worst_norm);
    }
  }
}
