// Health: detects a slow rank, a falling throughput and late data from a few clocks of every rank.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/config/job.h"

namespace ratplus::run {

/// A rank's clocks over some steps: seconds of their sum.
struct RankClocks {
  double training = 0;   ///< in steps; about the same on all ranks, which wait for each other
  double waited = 0;     ///< of them, for other ranks (Watchdog::waited_seconds)
  double data_wait = 0;  ///< of them, for its own loader
};

/// The rank that the others wait for.
struct SlowestRank {
  std::size_t rank = 0;
  double lag = 0;  ///< seconds that the others (their median) have waited longer for ranks than it has
};

/// The one that has waited least for others; nothing where there is one rank. Not negative.
std::optional<SlowestRank> slowest_rank(std::span<const RankClocks> ranks);

/// A condition that is reported when it begins and when it ends. Two reports in a row begin or end it, so that a single
/// one has no effect.
class Episode {
 public:
  enum class Change { none, began, ended };
  Change update(bool holds);
  bool active() const { return active_; }

 private:
  bool active_ = false;
  int against_ = 0;  ///< reports in a row to the contrary
};

/// The run's own seconds a step: the median of the latest reports.
class UsualPace {
 public:
  /// The median of the reports so far; nothing while they are too few.
  std::optional<double> median() const;
  /// The first report of a process is left out: its steps load libraries and touch memory for the first time.
  void add(double seconds_a_step);

 private:
  static constexpr std::size_t least = 5;
  static constexpr std::size_t most = 1000;
  bool warm_ = false;
  std::deque<double> seconds_;
};

/// Between two reports.
struct HealthMetrics {
  std::vector<double> rank_seconds;  ///< a step, of each rank: what it took without its waits for other ranks
  std::int64_t slowest_rank = 0;     ///< the rank that the others wait for
  std::string slowest_host;
  double lag_seconds = 0;      ///< a step, that they wait for it
  double data_wait_share = 0;  ///< of the steps' time, the greatest of all ranks
  double pace_ratio = 0;       ///< tokens a second over the run's own median; 0 while there is none
  bool straggler = false;      ///< these three have been warned about and still hold
  bool slowdown = false;
  bool data_wait = false;
};

/// Judges each report's clocks by the limits of [health].
class HealthMonitor {
 public:
  /// hosts: of every rank.
  HealthMonitor(const config::HealthSection& limits, std::vector<std::string> hosts);

  /// ranks: the clocks of all, over `steps` steps (of one resumed in its middle, a share) up to step `step`. Adds to `warnings` a line for each condition that
  /// begins or ends.
  HealthMetrics report(std::int64_t step, double steps, std::span<const RankClocks> ranks,
                       std::vector<std::string>& warnings);

 private:
  void judge_ranks(double steps, std::span<const RankClocks> ranks, HealthMetrics& metrics,
                   std::vector<std::string>& warnings);
  void judge_pace(double seconds_a_step, HealthMetrics& metrics, std::vector<std::string>& warnings);
  void judge_data(std::span<const RankClocks> ranks, HealthMetrics& metrics,
                  std::vector<std::string>& warnings);

  config::HealthSection limits_;
  std::vector<std::string> hosts_;
  UsualPace usual_;
  Episode straggler_;
  std::size_t straggling_ = 0;  ///< the rank of that episode, or of the last report
  Episode slowdown_;
  Episode data_wait_;
};

}  // namespace ratplus::run
