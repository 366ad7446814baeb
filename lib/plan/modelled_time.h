// ModelledTime: begin and end of a GPU's computation and collectives, without any GPU.
#pragma once

#include <vector>

namespace ratplus::plan {

/// One stream of computation, and streams of collectives beside it (as parallel/nccl_communicator.cpp gives them): a
/// collective begins when the computation given so far is done and the one before it on its stream is; computation goes
/// on meanwhile, more slowly, until it waits for one. Seconds from 0.
class ModelledTime {
 public:
  /// The computation of so many seconds, were it alone.
  void compute(double seconds);
  /// Waits until this time.
  void wait(double until);
  /// Where a stream of collectives is free.
  using Stream = double;
  /// A collective of so many seconds on a stream, not before a time; `load`: the share of the computation's pace that it
  /// takes. Returns when it is done.
  double launch(Stream& stream, double seconds, double load, double not_before);

  double now() const { return now_; }
  double stalled() const { return stalled_; }  ///< seconds in wait()
  double slowed() const {
    return slowed_;
  }  ///< seconds that collectives have cost the computation beside them

 private:
  struct Collective {
    double begin, end, load;
  };
  double now_ = 0;  ///< of the computation
  double stalled_ = 0;
  double slowed_ = 0;
  std::vector<Collective> under_way_;  ///< that end after now_
};

}  // namespace ratplus::plan
