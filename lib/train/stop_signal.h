// StopSignal: SIGINT, SIGTERM and SIGUSR1 as a request to end in order.
#pragma once

#include <array>
#include <csignal>

namespace ratplus::train {

/// While one lives, the first SIGINT, SIGTERM or SIGUSR1 (which mpirun passes on and Slurm can send) is remembered; a
/// second of the same kind ends the program at once. One at a time.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// The signal that this process was sent; 0 if none.
  static int received();

 private:
  static constexpr std::array signals_ = {SIGINT, SIGTERM, SIGUSR1};
  std::array<struct sigaction, signals_.size()> old_{};
};

}  // namespace ratplus::train
