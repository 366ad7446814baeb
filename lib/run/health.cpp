#include "lib/run/health.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/median.h"

namespace ratplus::run {
namespace {

constexpr int reports_in_a_row = 2;

double percent(double share) {
  return 100 * share;
}

}  // namespace

std::optional<SlowestRank> slowest_rank(std::span<const RankClocks> ranks) {
  if (ranks.size() < 2) return std::nullopt;
  const auto least = std::ranges::min_element(ranks, {}, &RankClocks::waited);
  SlowestRank slowest{.rank = static_cast<std::size_t>(least - ranks.begin())};
  std::vector<double> others;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    if (r != slowest.rank) others.push_back(ranks[r].waited);
  }
  slowest.lag = median(std::move(others)) - least->waited;
  return slowest;
}

Episode::Change Episode::update(bool holds) {
  against_ = holds == active_ ? 0 : against_ + 1;
  if (against_ < reports_in_a_row) return Change::none;
  against_ = 0;
  active_ = holds;
  return holds ? Change::began : Change::ended;
}

std::optional<double> UsualPace::median() const {
  if (seconds_.size() < least) return std::nullopt;
  return ratplus::median({seconds_.begin(), seconds_.end()});
}

void UsualPace::add(double seconds_a_step) {
  if (!std::exchange(warm_, true)) return;
  seconds_.push_back(seconds_a_step);
  if (seconds_.size() > most) seconds_.pop_front();
}

HealthMonitor::HealthMonitor(const config::HealthSection& limits, std::vector<std::string> hosts)
    : limits_(limits), hosts_(std::move(hosts)) {}

HealthMetrics HealthMonitor::report(std::int64_t step, double steps, std::span<const RankClocks> ranks,
                                    std::vector<std::string>& warnings) {
  require(steps > 0 && ranks.size() == hosts_.size(), "{} steps of {} ranks, not {}", steps, ranks.size(),
          hosts_.size());
  HealthMetrics metrics;
  const auto first_new = static_cast<std::ptrdiff_t>(warnings.size());
  judge_ranks(steps, ranks, metrics, warnings);
  judge_pace(ranks.front().training / steps, metrics, warnings);
  judge_data(ranks, metrics, warnings);
  std::for_each(warnings.begin() + first_new, warnings.end(),
                [&](std::string& text) { text = fmt::format("step {}: {}", step, text); });
  return metrics;
}

void HealthMonitor::judge_ranks(double steps, std::span<const RankClocks> ranks, HealthMetrics& metrics,
                                std::vector<std::string>& warnings) {
  const auto a_step = 1 / steps;
  for (const auto& rank : ranks)
    metrics.rank_seconds.push_back(std::max(0.0, rank.training - rank.waited) * a_step);
  metrics.slowest_host = hosts_.front();
  const auto slowest = slowest_rank(ranks);
  if (!slowest) return;
  const auto& clocks = ranks[slowest->rank];
  metrics.slowest_rank = static_cast<std::int64_t>(slowest->rank);
  metrics.slowest_host = hosts_[slowest->rank];
  metrics.lag_seconds = slowest->lag * a_step;
  const double share = clocks.training > 0 ? slowest->lag / clocks.training : 0;
  bool slow = limits_.straggler > 0 && share > limits_.straggler;
  if (!straggler_.active() && slowest->rank != straggling_) {
    straggling_ = slowest->rank;  // another than in the last report: reports in a row begin anew
    straggler_ = {};
  }
  slow = slow && slowest->rank == straggling_;
  const auto change = straggler_.update(slow);
  metrics.straggler = straggler_.active();
  if (change == Episode::Change::began) {
    warnings.push_back(fmt::format(
        "rank {} on {} is slow: the other ranks wait {:.3g} s a step for it, {:.0f} % of the step{}",
        slowest->rank, metrics.slowest_host, metrics.lag_seconds, percent(share),
        clocks.data_wait > slowest->lag / 2
            ? fmt::format(" (it waits {:.3g} s a step for its data)", clocks.data_wait * a_step)
            : ""));
  }
  if (change == Episode::Change::ended) {
    warnings.push_back(fmt::format("rank {} on {} is no longer slow", straggling_, hosts_[straggling_]));
  }
}

void HealthMonitor::judge_pace(double seconds_a_step, HealthMetrics& metrics,
                               std::vector<std::string>& warnings) {
  const auto usual = usual_.median();
  usual_.add(seconds_a_step);
  if (!usual || seconds_a_step <= 0) return;
  metrics.pace_ratio = *usual / seconds_a_step;
  const auto change = slowdown_.update(limits_.slowdown > 0 && metrics.pace_ratio < 1 - limits_.slowdown);
  metrics.slowdown = slowdown_.active();
  if (change == Episode::Change::began) {
    warnings.push_back(
        fmt::format("tokens a second have fallen to {:.0f} % of this run's median: a step takes {:.3g} s "
                    "instead of {:.3g} s",
                    percent(metrics.pace_ratio), seconds_a_step, *usual));
  }
  if (change == Episode::Change::ended) {
    warnings.push_back(fmt::format("tokens a second are at {:.0f} % of this run's median again",
                                   percent(metrics.pace_ratio)));
  }
}

void HealthMonitor::judge_data(std::span<const RankClocks> ranks, HealthMetrics& metrics,
                               std::vector<std::string>& warnings) {
  std::size_t longest = 0;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const double share = ranks[r].training > 0 ? ranks[r].data_wait / ranks[r].training : 0;
    if (share <= metrics.data_wait_share) continue;
    metrics.data_wait_share = share;
    longest = r;
  }
  const auto change = data_wait_.update(limits_.data_wait > 0 && metrics.data_wait_share > limits_.data_wait);
  metrics.data_wait = data_wait_.active();
  if (change == Episode::Change::began) {
    warnings.push_back(fmt::format(
        "data come late: rank {} on {} waits for them {:.0f} % of the time; look at the file system of the "
        "dataset, and at data.prefetch",
        longest, hosts_[longest], percent(metrics.data_wait_share)));
  }
  if (change == Episode::Change::ended) warnings.emplace_back("data come in time again");
}

}  // namespace ratplus::run
