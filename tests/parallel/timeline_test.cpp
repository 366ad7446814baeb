#include "parallel/timeline.h"

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <vector>

using namespace ratplus;
using namespace ratplus::parallel;
using Lane = Timeline::Lane;

namespace {

/// Its marks are told, in seconds.
class ToldStopwatch final : public Stopwatch {
 public:
  int told(double seconds) {
    marks_.push_back(seconds);
    return static_cast<int>(marks_.size()) - 1;
  }
  int mark() override { return told(marks_.empty() ? 0 : marks_.back()); }
  double seconds(int from, int to) override {
    return marks_[static_cast<std::size_t>(to)] - marks_[static_cast<std::size_t>(from)];
  }

 private:
  std::vector<double> marks_;
};

}  // namespace

TEST_CASE("a timeline's waits are counted with the collectives of the lane that was waited for") {
  auto owned = std::make_unique<ToldStopwatch>();
  auto& watch = *owned;
  Timeline timeline(std::move(owned));
  const auto collective = [&](Lane lane, const char* kind, double from, double to, std::int64_t bytes) {
    timeline.add(lane, kind, "x", watch.told(from), watch.told(to), bytes);
  };
  const auto wait = [&](Lane of, const char* kind, double from, double to) {
    timeline.add_wait(of, kind, "x", watch.told(from), watch.told(to));
  };
  collective(Lane::shards, "all_reduce", 1, 2, 10);
  collective(Lane::replicas, "all_reduce", 2, 4, 100);
  collective(Lane::shards, "all_gather", 4, 5, 1000);
  collective(Lane::replicas, "all_reduce", 5, 6, 100);
  wait(Lane::shards, "all_reduce", 1, 1.25);
  wait(Lane::replicas, "all_reduce", 2, 2.5);
  wait(Lane::replicas, "all_reduce", 5, 5.5);
  wait(Lane::replicas, "all_gather", 5, 6);  // of which there was none

  std::map<std::pair<Lane, std::string>, CollectiveTotal> found;
  for (const auto& total : totals(timeline.finish())) found[{total.lane, total.kind}] = total;
  REQUIRE(found.size() == 3);
  const auto check = [&](Lane lane, const char* kind, std::int64_t calls, std::int64_t bytes, double seconds,
                         double waited) {
    const auto& total = found.at({lane, kind});
    CHECK(total.calls == calls);
    CHECK(total.bytes == bytes);
    CHECK(total.seconds == doctest::Approx(seconds));
    CHECK(total.waited == doctest::Approx(waited));
  };
  check(Lane::shards, "all_reduce", 1, 10, 1, 0.25);
  check(Lane::replicas, "all_reduce", 2, 200, 3, 1);
  check(Lane::shards, "all_gather", 1, 1000, 1, 0);
}
