// TestFault: a fault of a rank by RATPLUS_TEST_FAULT, for tests.
#pragma once

#include <cstdint>
#include <memory>

#include "data/samples/samples.h"
#include "lib/train/update.h"

namespace ratplus::train {

/// RATPLUS_TEST_FAULT=RANK:ACTION:..., one of
///
///     gradient:STEP:UPDATE:TIMES   this rank's gradient is NaN, in update UPDATE (1 or 2) of step STEP and of the TIMES - 1
///     loss:STEP:UPDATE:TIMES       steps after it; or its loss is infinite
///     slow:SECONDS:STEP          each of its updates takes so much longer, from step STEP on
///     data:SECONDS:STEP          reading each of its samples takes so much longer, likewise
///
/// Steps are counted from 1; what is left out is 1.
class TestFault {
 public:
  /// From the environment. Throws Error for any other value.
  explicit TestFault(int rank);

  /// The fault of this update (from 0) of the step; sleeps if the fault is slowness.
  UpdateFault in_update(std::int64_t step, std::size_t update) const;
  /// The samples, or slower ones; `batch`: samples a step.
  std::unique_ptr<data::Samples> wrap(std::unique_ptr<data::Samples> samples, std::int64_t batch) const;

 private:
  enum class Action { none, gradient, loss, slow, data };

  Action action_ = Action::none;
  double seconds_ = 0;
  std::int64_t step_ = 1;
  std::int64_t update_ = 1;
  std::int64_t times_ = 1;
};

}  // namespace ratplus::train
