#include "lib/report/timeline_chart.h"

#include <doctest/doctest.h>

#include "base/error.h"

namespace ratplus::report {
namespace {

using parallel::Timeline;
using Lane = Timeline::Lane;

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// Two updates of 100 ms: forward and backward of two blocks and the head, an update.
std::vector<Timeline::Span> two_updates() {
  std::vector<Timeline::Span> spans;
  for (int update = 0; update < 2; ++update) {
    double at = 0.1 * update;
    const auto compute = [&](const char* kind, const char* subject, double seconds) {
      spans.push_back({Lane::compute, kind, subject, at, at + seconds, 0});
      at += seconds;
    };
    compute("forward", "blocks.0", 0.015);
    compute("forward", "blocks.1", 0.015);
    compute("backward", "root", 0.01);
    compute("backward", "blocks.1", 0.025);
    compute("backward", "blocks.0", 0.025);
    compute("update", "", 0.01);
    spans.push_back({Lane::waiting, "all_gather", "blocks.1", 0.1 * update + 0.015, 0.1 * update + 0.018, 0});
    spans.push_back({Lane::shards, "all_gather", "blocks.1", 0.1 * update, 0.1 * update + 0.018, 1 << 20});
  }
  return spans;
}

}  // namespace

TEST_CASE("a timeline shows each update, how long it waited, and the lanes that are used") {
  const auto svg = draw_timeline(two_updates(), "a step & more");
  CHECK(count(svg, "update 1: 100.0 ms, of which 3.0 ms waiting") == 1);
  CHECK(count(svg, "update 2: 100.0 ms, of which 3.0 ms waiting") == 1);
  CHECK(count(svg, "where the last update turns") == 1);
  CHECK(count(svg, ">shard group</text>") == 3);
  CHECK(count(svg, ">replicas</text>") == 0);
  CHECK(count(svg, "a step &amp; more") >= 1);
  // All of a row lies in the plot: nothing is drawn left of it or beyond the page.
  CHECK(count(svg, "x=\"-") == 0);
}

TEST_CASE("a timeline without an update is a fault") {
  CHECK_THROWS_AS(draw_timeline({{Lane::compute, "forward", "root", 0, 1, 0}}, ""), std::logic_error);
}

}  // namespace ratplus::report
