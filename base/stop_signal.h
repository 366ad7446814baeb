// StopSignal: SIGINT, SIGTERM and their like as a request to end in order.
#pragma once

#include <array>
#include <atomic>
#include <csignal>

namespace ratplus {

/// "SIGTERM".
const char* name_of_signal(int signal);

/// Handlers of these signals, in the place of those that were there before and come back after. A SIGHUP that is
/// ignored (nohup) stays so.
class StopHandlers {
 public:
  explicit StopHandlers(void (*handler)(int));
  ~StopHandlers();
  StopHandlers(const StopHandlers&) = delete;
  StopHandlers& operator=(const StopHandlers&) = delete;

 private:
  static constexpr std::array signals_ = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU};
  std::array<struct sigaction, signals_.size()> old_{};
};

/// While one lives, the first SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2 (which mpirun passes on and batch systems can
/// send before they end a job) or SIGXCPU (ulimit -t) is remembered. More of them change nothing, since one request often comes twice (timeout(1) signals its child and then
/// its group; a terminal signals all, and mpirun passes it on), except for a SIGINT at least `impatience_seconds` after
/// the first signal: who presses Ctrl-C again ends the program at once. Of several at a time, the first counts.
class StopSignal {
 public:
  static constexpr int impatience_seconds = 2;

  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// The signal that this process was sent; 0 if none.
  static int received();

 private:
  StopHandlers handlers_;
};

/// While one lives, and no StopSignal within it, such a signal ends the program at once with this status: for the time
/// in which there is nothing to save. One at a time.
class EndOnSignal {
 public:
  /// `message` is printed then; null for none.
  EndOnSignal(int status, const char* message);
  /// From here on the program is on its way out with this status, for a reason of its own: a signal (mpirun and Slurm
  /// send one to the other ranks when one has ended) hastens that and adds no message.
  void already_ending(int status);
  /// Set by the handler before the program ends (Watchdog::stopped), while this lives.
  class Mark {
   public:
    explicit Mark(std::atomic<bool>& stopped);
    ~Mark();
    Mark(const Mark&) = delete;
    Mark& operator=(const Mark&) = delete;
  };
  ~EndOnSignal() = default;
  EndOnSignal(const EndOnSignal&) = delete;
  EndOnSignal& operator=(const EndOnSignal&) = delete;

 private:
  StopHandlers handlers_;
};

}  // namespace ratplus
