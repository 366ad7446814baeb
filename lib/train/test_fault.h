// TestFault: what RATPLUS_TEST_FAULT makes a rank of a training run do wrong, for tests.
#pragma once

#include <cstdint>
#include <memory>

#include "data/samples/samples.h"
#include "lib/train/half.h"

namespace ratplus::train {

/// RATPLUS_TEST_FAULT=RANK:ACTION:..., one of
///
///     gradient:STEP:HALF:TIMES   this rank's gradient is NaN, in half HALF (1 or 2) of step STEP and of the TIMES - 1
///     loss:STEP:HALF:TIMES       steps after it; or its loss is infinite
///     slow:SECONDS:STEP          each of its halves takes so much longer, from step STEP on
///     data:SECONDS:STEP          reading each of its samples takes so much longer, likewise
///
/// Steps are counted from 1; what is left out is 1.
class TestFault {
 public:
  /// Of the environment. Throws Error where it says something else.
  explicit TestFault(int rank);

  /// What goes wrong in this half (from 0) of the step; sleeps where it is slow.
  HalfFault in_half(std::int64_t step, std::size_t half) const;
  /// The samples, or slower ones; `batch`: samples a step.
  std::unique_ptr<data::Samples> wrap(std::unique_ptr<data::Samples> samples, std::int64_t batch) const;

 private:
  enum class Action { none, gradient, loss, slow, data };

  Action action_ = Action::none;
  double seconds_ = 0;
  std::int64_t step_ = 1;
  std::int64_t half_ = 1;
  std::int64_t times_ = 1;
};

}  // namespace ratplus::train
