#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <span>
#include <string>

#include "base/error.h"
#include "tests/support/ranks.h"

using ratplus::fail;
using ratplus::parallel::AgreedError;

TEST_CASE("sums and maxima are those of all ranks, with the same bits everywhere") {
  const std::int64_t n = world().size();
  CHECK(world().sum(std::int64_t{world().rank() + 1}) == n * (n + 1) / 2);
  CHECK(world().max(std::int64_t{-world().rank()}) == 0);
  // Values whose float64 sum depends on the order: every rank must still have the same one.
  const double total = world().sum(world().rank() % 2 == 0 ? 1e16 : 1.0 / 3);
  CHECK(world().broadcast(fmt::format("{:a}", total)) == fmt::format("{:a}", total));
}

TEST_CASE("several values at once are summed as each alone, and collected in the order of the ranks") {
  const double r = world().rank();
  std::array values = {world().rank() % 2 == 0 ? 1e16 : 1.0 / 3, -r};
  const std::array own = values;
  world().sum(values);
  CHECK(values[0] == world().sum(own[0]));
  CHECK(values[1] == world().sum(own[1]));
  const auto all = world().all(own);
  REQUIRE(all.size() == 2 * static_cast<std::size_t>(world().size()));
  for (std::size_t other = 0; other < all.size() / 2; ++other)
    CHECK(all[2 * other + 1] == -static_cast<double>(other));
}

TEST_CASE("what a rank waits for others is counted") {
  if (world().size() == 1) return;
  const double before = world().watchdog().waited_seconds();
  if (world().root()) usleep(200'000);
  world().sum(1.0);
  const double waited = world().watchdog().waited_seconds() - before;
  const auto all = world().all(std::span(&waited, 1));
  for (int other = 1; other < world().size(); ++other) CHECK(all[static_cast<std::size_t>(other)] > all[0]);
}

TEST_CASE("a text of the root reaches every rank, empty ones too") {
  CHECK(world().broadcast(world().root() ? "from the root" : "mine") == "from the root");
  CHECK(world().broadcast(world().root() ? "" : "mine").empty());
}

TEST_CASE("agree: a failure of one rank is thrown on all, with its message and its rank") {
  const int last = world().size() - 1;
  std::string message;
  try {
    world().agree([&] {
      if (world().rank() == last) fail("shard-7.h5: missing");
    });
  } catch (const AgreedError& error) {
    message = error.what();
  }
  CHECK(message == (last == 0 ? "shard-7.h5: missing"
                              : fmt::format("rank {} on {}: shard-7.h5: missing", last, world().host())));
}

TEST_CASE("agree: a failure of all ranks is told once, without a rank; of several, the lowest rank's") {
  std::string message;
  try {
    world().agree([&] { fail("job.toml:3: wrong"); });
  } catch (const AgreedError& error) {
    message = error.what();
  }
  CHECK(message == "job.toml:3: wrong");
  if (world().size() < 3) return;
  try {
    world().agree([&] {
      if (world().rank() > 0) fail("from {}", world().rank());
    });
  } catch (const AgreedError& error) {
    message = error.what();
  }
  CHECK(message == fmt::format("rank 1 on {}: from 1", world().host()));
}

TEST_CASE("agree: nothing is thrown where nothing failed") {
  CHECK_NOTHROW(world().agree([] {}));
}

TEST_CASE("threads: what is asked for comes first, then OMP_NUM_THREADS") {
  CHECK(world().threads(3) == 3);
  setenv("OMP_NUM_THREADS", "5", 1);
  CHECK(world().threads(0) == 5);
  unsetenv("OMP_NUM_THREADS");
  CHECK(world().threads(0) >= 1);
  setenv("OMP_NUM_THREADS", "1", 1);
}

TEST_CASE("ranks of this host are counted") {
  CHECK(world().local_size() == world().size());  // the tests start all of them here
  CHECK(world().local_rank() == world().rank());
  CHECK(!world().host().empty());
}

TEST_CASE("texts and values of all ranks, by rank") {
  CHECK(world().all(std::int64_t{7} * world().rank()).back() == 7 * (world().size() - 1));
  const auto all = world().all(std::string(static_cast<std::size_t>(world().rank()), 'x'));
  REQUIRE(all.size() == static_cast<std::size_t>(world().size()));
  for (int rank = 0; rank < world().size(); ++rank) {
    CHECK(all[static_cast<std::size_t>(rank)] == std::string(static_cast<std::size_t>(rank), 'x'));
  }
}
