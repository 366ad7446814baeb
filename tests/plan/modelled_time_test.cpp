#include "lib/plan/modelled_time.h"

#include <doctest/doctest.h>

using ratplus::plan::ModelledTime;

TEST_CASE("a collective goes on beside computation, and is waited for where it is longer") {
  ModelledTime time;
  ModelledTime::Stream stream = 0;
  time.compute(1);
  const double end = time.launch(stream, 3, 0, 0);
  CHECK(end == 4);
  time.compute(2);
  CHECK(time.now() == 3);
  time.wait(end);
  CHECK(time.now() == 4);
  CHECK(time.stalled() == 1);
  time.wait(end);  // it is done
  CHECK(time.now() == 4);
  CHECK(time.slowed() == 0);
}

TEST_CASE("collectives of a stream follow each other, those of two run together") {
  ModelledTime time;
  ModelledTime::Stream one = 0, other = 0;
  CHECK(time.launch(one, 2, 0, 0) == 2);
  CHECK(time.launch(one, 2, 0, 0) == 4);
  CHECK(time.launch(other, 3, 0, 0) == 3);
  CHECK(time.launch(other, 1, 0, 10) == 11);
}

TEST_CASE("computation is slower as long as collectives run") {
  ModelledTime time;
  ModelledTime::Stream one = 0, other = 0;
  time.launch(one, 2, 0.5, 0);     // [0, 2)
  time.launch(other, 2, 0.25, 1);  // [1, 3)
  // By 1: 0.5 done; by 2: 0.25 more; by 3: 0.75 more; the rest alone.
  time.compute(2);
  CHECK(time.now() == doctest::Approx(3.5));
  CHECK(time.slowed() == doctest::Approx(1.5));
}

TEST_CASE("computation that begins before a collective does is slower from then on") {
  ModelledTime time;
  ModelledTime::Stream stream = 0;
  time.launch(stream, 1, 0.5, 2);  // [2, 3)
  time.compute(2.25);
  CHECK(time.now() == doctest::Approx(2.5));
  time.compute(1.25);
  CHECK(time.now() == doctest::Approx(4));
  CHECK(time.slowed() == doctest::Approx(0.5));
}

TEST_CASE("computation that nothing runs beside is not slower, whatever its seconds round to") {
  ModelledTime time;
  for (int i = 1; i < 1000; ++i) time.compute(1e-3 / i);
  CHECK(time.slowed() == 0);
}
