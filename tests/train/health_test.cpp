// What a rank's clocks tell: the slowest rank, a falling throughput, late data; each told once an episode.
#include "lib/run/health.h"

#include <doctest/doctest.h>

#include "lib/train/not_finite.h"
#include "tests/support/messages.h"

using namespace ratplus;
using run::Episode;
using run::RankClocks;

namespace {

const std::vector<std::string> hosts = {"a", "a", "b", "b"};

/// Ranks that have trained for 10 s and waited for each other so long.
std::vector<RankClocks> waiting(std::vector<double> seconds) {
  std::vector<RankClocks> ranks;
  for (const double waited : seconds) ranks.push_back({.training = 10, .waited = waited, .data_wait = 0});
  return ranks;
}

/// The lines of one report after another.
std::vector<std::string> told(run::HealthMonitor& monitor,
                              const std::vector<std::vector<RankClocks>>& reports) {
  std::vector<std::string> warnings;
  std::int64_t step = 0;
  for (const auto& ranks : reports) monitor.report(step += 5, 5, ranks, warnings);
  return warnings;
}

std::vector<RankClocks> paced(double seconds) {
  return std::vector<RankClocks>(4, {.training = seconds, .waited = 0, .data_wait = 0});
}

}  // namespace

TEST_CASE("the slowest rank is the one that waits least, by what the others wait more") {
  CHECK(!run::slowest_rank(waiting({3})));
  const auto slowest = run::slowest_rank(waiting({5, 4, 1, 6}));
  REQUIRE(slowest);
  CHECK(slowest->rank == 2);
  CHECK(slowest->lag == 4);
  CHECK(run::slowest_rank(waiting({2, 2, 2, 2}))->lag == 0);
  CHECK(run::slowest_rank(waiting({3, 8}))->lag == 5);
}

TEST_CASE("an episode begins and ends after two reports in a row") {
  Episode episode;
  using Change = Episode::Change;
  CHECK(episode.update(true) == Change::none);
  CHECK(episode.update(false) == Change::none);
  CHECK(episode.update(true) == Change::none);
  CHECK(episode.update(true) == Change::began);
  CHECK(episode.update(true) == Change::none);
  CHECK(episode.update(false) == Change::none);
  CHECK(episode.update(true) == Change::none);
  CHECK(episode.update(false) == Change::none);
  CHECK(episode.active());
  CHECK(episode.update(false) == Change::ended);
  CHECK(!episode.active());
}

TEST_CASE("a straggler is named once, with its host, and so is its end") {
  run::HealthMonitor monitor({}, hosts);
  const auto slow = waiting({5, 5, 1, 5});
  const auto even = waiting({1, 1, 1, 1});
  const auto lines = told(monitor, {even, slow, slow, slow, slow, even, even, even});
  REQUIRE(lines.size() == 2);
  CHECK(lines[0] ==
        "step 15: rank 2 on b is slow: the other ranks wait 0.8 s a step for it, 40 % of the step");
  CHECK(lines[1] == "step 35: rank 2 on b is no longer slow");
}

TEST_CASE(
    "late ranks that change from report to report are noise, and one that goes on after another is another") {
  run::HealthMonitor monitor({}, hosts);
  const auto first = waiting({1, 5, 5, 5});
  const auto third = waiting({5, 5, 1, 5});
  CHECK(told(monitor, {first, third, first, third}).empty());
  const auto lines = told(monitor, {first, first, third, third, third, third});
  REQUIRE(lines.size() == 3);
  CHECK(test::contains(lines[0], "rank 0 on a is slow"));
  CHECK(test::contains(lines[1], "rank 0 on a is no longer slow"));
  CHECK(test::contains(lines[2], "rank 2 on b is slow"));
}

TEST_CASE("below its limit, or with a limit of 0, nothing is told") {
  run::HealthMonitor monitor({.straggler = 0.5}, hosts);
  CHECK(told(monitor, std::vector(4, waiting({5, 5, 1, 5}))).empty());
  run::HealthMonitor off({.straggler = 0, .slowdown = 0, .data_wait = 0}, hosts);
  auto all = waiting({9, 9, 0, 9});
  all[1].data_wait = 9;
  CHECK(told(off, std::vector(4, all)).empty());
}

TEST_CASE("throughput is held against the run's own median, once there is one") {
  run::HealthMonitor monitor({}, hosts);
  // The first report, of a slow start, is no measure.
  std::vector<std::vector<RankClocks>> reports = {paced(50), paced(10), paced(11),
                                                  paced(10), paced(9),  paced(10)};
  CHECK(told(monitor, reports).empty());
  const auto lines = told(monitor, {paced(20), paced(20), paced(20), paced(10), paced(10)});
  REQUIRE(lines.size() == 2);
  CHECK(lines[0] ==
        "step 10: tokens a second have fallen to 50 % of this run's median: a step takes 4 s instead of 2 s");
  CHECK(lines[1] == "step 25: tokens a second are at 100 % of this run's median again");
}

TEST_CASE("late data are told with the rank that waits most") {
  run::HealthMonitor monitor({}, hosts);
  auto late = waiting({1, 1, 1, 1});
  late[1].data_wait = 2;
  late[3].data_wait = 3;
  const auto lines = told(monitor, {late, late, late, waiting({1, 1, 1, 1}), waiting({1, 1, 1, 1})});
  REQUIRE(lines.size() == 2);
  CHECK(test::contains(lines[0], "data come late: rank 3 on b waits for them 30 % of the time"));
  CHECK(test::contains(lines[1], "data come in time again"));
}

TEST_CASE("the fields of a report") {
  run::HealthMonitor monitor({}, hosts);
  std::vector<std::string> warnings;
  auto ranks = waiting({5, 4, 1, 12});  // a GPU's collectives may run beside its computation
  ranks[0].data_wait = 1;
  const auto metrics = monitor.report(5, 5, ranks, warnings);
  REQUIRE(metrics.rank_seconds.size() == 4);
  const std::vector<double> expected = {1, 1.2, 1.8, 0};
  for (std::size_t r = 0; r < 4; ++r) CHECK(metrics.rank_seconds[r] == doctest::Approx(expected[r]));
  CHECK(metrics.slowest_rank == 2);
  CHECK(metrics.slowest_host == "b");
  CHECK(metrics.lag_seconds == doctest::Approx(0.8));
  CHECK(metrics.data_wait_share == doctest::Approx(0.1));
  CHECK(metrics.pace_ratio == 0);
  CHECK(!metrics.straggler);
}

TEST_CASE("an update that is not finite stops at once, or after so many with its number in a row") {
  train::SkipLimit stop({}, 2);
  CHECK(!stop.stops(0, true));
  CHECK(stop.stops(1, false));
  train::SkipLimit skip({.not_finite = config::NotFinite::skip, .max_skips = 2}, 2);
  CHECK(!skip.stops(0, false));
  CHECK(!skip.stops(1, false));
  CHECK(!skip.stops(0, true));
  CHECK(!skip.stops(0, false));
  CHECK(skip.in_a_row(0) == 1);
  CHECK(skip.stops(1, false));
  CHECK(skip.in_a_row() == std::vector<std::int64_t>{1, 1});  // that which stops is made again
  train::SkipLimit resumed({.not_finite = config::NotFinite::skip, .max_skips = 2}, 2);
  CHECK(resumed.in_a_row().empty());
  resumed.resume(skip.in_a_row());
  CHECK(!resumed.stops(0, true));
  CHECK(resumed.stops(1, false));
  resumed.resume({});
  CHECK(!resumed.stops(1, false));
}
