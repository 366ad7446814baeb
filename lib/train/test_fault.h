// TestFault: a fault of a rank by RATPLUS_TEST_FAULT, for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/samples/samples.h"
#include "lib/session/session.h"
#include "lib/train/update.h"

namespace ratplus::train {

/// RATPLUS_TEST_FAULT=RANK:ACTION:..., one of
///
///     gradient:STEP:UPDATE:TIMES   this rank's gradient is NaN, in update UPDATE (1 or 2) of step STEP and of the TIMES - 1
///     loss:STEP:UPDATE:TIMES       steps after it; or its loss is infinite
///     slow:SECONDS:STEP          each of its updates takes so much longer, from step STEP on
///     data:SECONDS:STEP          reading each of its samples takes so much longer, likewise
///     flip:KIND:UNIT:STEP:TIMES  after step STEP one bit of this rank's copy changes, each time that it comes there, TIMES at
///                                most; KIND: master, first, second (moments), weights, gradient; UNIT: the unit's index
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
  /// After `step` steps.
  void flip_a_bit(std::int64_t step, session::Session& session);

 private:
  enum class Action { none, gradient, loss, slow, data, flip };

  Action action_ = Action::none;
  double seconds_ = 0;
  std::int64_t step_ = 1;
  std::int64_t update_ = 1;
  std::int64_t times_ = 1;
  std::string kind_;  ///< of flip
  std::int64_t unit_ = 0;
};

}  // namespace ratplus::train
