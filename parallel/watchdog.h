// Watchdog: ends every rank of the job when one has died, or waits for others for too long.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "parallel/node_board.h"

namespace ratplus::parallel {

/// A thread beside the rank's own, that looks several times a second
///   - whether the other ranks of this host are alive,
///   - whether this rank waits in a collective for longer than the timeout,
///   - at what was added: NCCL's errors, and collectives that a GPU does not finish.
/// At a failure one rank of the host prints one message that names rank, host and operation, and ends the job. So no
/// rank outlives another by more than the timeout: a collective that a dead or stuck rank never joins ends there, even
/// if this host shares nothing with that rank's.
///
/// Time counts while this process runs: the time of a stop (SIGSTOP, a debugger) does not count.
class Watchdog {
 public:
  struct Rank {
    int rank = 0;
    std::string host;
    bool first_host = true;  ///< is it rank 0's
  };

  /// Seconds that a rank waits for others where no job says otherwise.
  static constexpr double default_timeout = 600;
  /// For work that some ranks do for as long as it takes while others wait: a rank that dies still ends all.
  static constexpr double no_timeout = std::numeric_limits<double>::infinity();
  /// Seconds that hosts other than rank 0's leave it to report what all see, and the launcher to end their ranks.
  static constexpr double courtesy = 6;

  /// Starts to watch. Every rank of the host has the board open. Without other ranks there is no thread. For tests,
  /// RATPLUS_TEST_TIMEOUT takes the place of default_timeout.
  Watchdog(Rank self, int ranks, NodeBoard& board);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Seconds that a collective may take.
  void set_timeout(double seconds) { timeout_ = seconds; }
  double timeout() const { return timeout_; }

  /// The present work of this rank, "forward of blocks.3": for messages. For tests, RATPLUS_TEST_FAILURE makes a rank fail
  /// here or in a wait, "1:kill:forward of blocks.3:2": rank 1 kills itself (or with `stall`, sleeps for ever) at the
  /// second time that it does this.
  void at(std::string_view kind, std::string_view subject = {});

  /// This rank waits for others as long as one lives.
  class Waiting {
   public:
    Waiting(Watchdog& watchdog, std::string_view kind, std::string_view subject = {});
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Watchdog& watchdog_;
    std::chrono::steady_clock::time_point began_;
  };

  /// Seconds that this rank has waited for others so far: in Waiting, and in what was added.
  double waited_seconds() const { return static_cast<double>(waited_ns_.load()) * 1e-9; }
  /// Waits that are seen from elsewhere: a GPU's in its collectives. From any thread.
  void add_waited(double seconds) { waited_ns_ += static_cast<std::int64_t>(seconds * 1e9); }

  /// Something else to look at: returns what is wrong, or nothing. Called on the watching thread until it is removed.
  using Check = std::function<std::string()>;
  int add_check(Check check);
  void remove_check(int number);

  /// Called with the message of a failure before it ends the job, on the watching thread of the rank that prints it: for
  /// what should outlive the job. It has about a second.
  void before_end(std::function<void(const std::string&)> tell);

  /// From here on this rank's end is no failure: it ends in order, or has said why.
  void leave();

  /// To be set by the handler of a signal that ends this rank (a store without lock): that is no failure then, and the
  /// other ranks of this host are sent SIGTERM, to end likewise.
  std::atomic<bool>& stopped() const { return board_.own().stopped; }

 private:
  /// Another rank of this host.
  struct Peer {
    int place = 0;
    std::string identity;  ///< of its process: a later one may get the same number
    int misses = 0;
  };

  void watch();
  void look_for_peers();
  bool stopped_peer() const;
  std::string dead_peer();
  std::string overdue(double seconds);
  std::string failed_check();
  std::string others_at() const;
  [[noreturn]] void end_job(const std::string& message);
  void fail_for_test(const SharedText& place);

  Rank self_;
  NodeBoard& board_;
  std::atomic<double> timeout_ = default_timeout;
  std::atomic<std::int64_t> waits_ = 0;  ///< number of waits begun
  std::atomic<std::int64_t> waited_ns_ = 0;
  std::atomic<bool> left_ = false;
  std::int64_t watched_wait_ = -1;  ///< the wait whose time is waited_
  double waited_ = 0;
  std::vector<Peer> peers_;

  std::mutex mutex_;  ///< of checks_, tell_ and stop_
  std::map<int, Check> checks_;
  int next_check_ = 0;
  std::function<void(const std::string&)> tell_;
  bool stop_ = false;
  std::condition_variable wake_;

  struct TestFailure {
    std::string place;
    bool stall = false;
    int times = 0;  ///< that are left until it fails; 0: never
  } test_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace ratplus::parallel
