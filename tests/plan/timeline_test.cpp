#include "lib/plan/timeline.h"

#include <doctest/doctest.h>

using ratplus::plan::Timeline;

TEST_CASE("a collective goes on beside computation, and is waited for where it is longer") {
  Timeline timeline;
  Timeline::Stream stream = 0;
  timeline.compute(1);
  const double end = timeline.launch(stream, 3, 0, 0);
  CHECK(end == 4);
  timeline.compute(2);
  CHECK(timeline.now() == 3);
  timeline.wait(end);
  CHECK(timeline.now() == 4);
  CHECK(timeline.stalled() == 1);
  timeline.wait(end);  // it is done
  CHECK(timeline.now() == 4);
  CHECK(timeline.slowed() == 0);
}

TEST_CASE("collectives of a stream follow each other, those of two run together") {
  Timeline timeline;
  Timeline::Stream one = 0, other = 0;
  CHECK(timeline.launch(one, 2, 0, 0) == 2);
  CHECK(timeline.launch(one, 2, 0, 0) == 4);
  CHECK(timeline.launch(other, 3, 0, 0) == 3);
  CHECK(timeline.launch(other, 1, 0, 10) == 11);
}

TEST_CASE("computation is slower as long as collectives run") {
  Timeline timeline;
  Timeline::Stream one = 0, other = 0;
  timeline.launch(one, 2, 0.5, 0);     // [0, 2)
  timeline.launch(other, 2, 0.25, 1);  // [1, 3)
  // By 1: 0.5 done; by 2: 0.25 more; by 3: 0.75 more; the rest alone.
  timeline.compute(2);
  CHECK(timeline.now() == doctest::Approx(3.5));
  CHECK(timeline.slowed() == doctest::Approx(1.5));
}

TEST_CASE("computation that begins before a collective does is slower from then on") {
  Timeline timeline;
  Timeline::Stream stream = 0;
  timeline.launch(stream, 1, 0.5, 2);  // [2, 3)
  timeline.compute(2.25);
  CHECK(timeline.now() == doctest::Approx(2.5));
  timeline.compute(1.25);
  CHECK(timeline.now() == doctest::Approx(4));
  CHECK(timeline.slowed() == doctest::Approx(0.5));
}
