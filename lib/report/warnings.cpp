#include "lib/report/warnings.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/report/format.h"
#include "lib/report/quantity.h"

namespace ratplus::report {
namespace {

using How = run::RunEnd::How;

/// Between two lines of steps, usually.
double seconds_a_line(const RunMetrics& run) {
  return run.median("step_seconds") * static_cast<double>(run.steps_a_line);
}

/// An end that is not that of the run: finished, it may still have failed in what comes after the last step.
bool ended_early(const RunMetrics& run) {
  return run.end && run.end->how != How::finished && !(run.finished() && run.end->how != How::failed);
}

/// As the run itself judges, by the limits of its [health].
void add_health(const RunMetrics& run, std::vector<std::string>& warnings) {
  const run::HealthMetrics& health = *run.health;
  if (health.straggler) {
    warnings.push_back(fmt::format("rank {} on {} is slow: the other ranks wait {} a step for it",
                                   health.slowest_rank, health.slowest_host,
                                   format_value(Unit::seconds, health.lag_seconds)));
  }
  if (health.slowdown) {
    warnings.push_back(fmt::format("throughput has fallen to {} tokens/s, {:.0f}% of its median",
                                   format_value(Unit::count, run.last("tokens_per_second")),
                                   100 * health.pace_ratio));
  }
  if (health.data_wait) {
    warnings.push_back(
        fmt::format("steps wait for data {} of their time (data.prefetch, or a faster file system)",
                    format_value(Unit::share, health.data_wait_share)));
  }
}

/// Of a run whose lines hold no judgement: written by an earlier version.
void add_estimated_health(const RunMetrics& run, std::vector<std::string>& warnings) {
  constexpr std::size_t recent = 5;  // lines
  const double speed = run.median("tokens_per_second", recent);
  const double usual_speed = run.median("tokens_per_second");
  if (speed < 0.7 * usual_speed) {
    warnings.push_back(fmt::format("throughput has fallen to {} tokens/s, {:.0f}% of its median",
                                   format_value(Unit::count, speed), 100 * speed / usual_speed));
  }
  const double waiting = run.median("data_wait_share", recent);
  if (waiting > 0.1) {
    warnings.push_back(
        fmt::format("steps wait for data {} of their time (data.prefetch, or a faster file system)",
                    format_value(Unit::share, waiting)));
  }
}

/// "its loss not finite", "its gradient norm not finite (loss 4.1000)"
std::string what_was_not_finite(const LeftOut& update) {
  if (std::isfinite(update.loss))
    return fmt::format("its gradient norm not finite (loss {})", format_value(Unit::nats, update.loss));
  return std::isfinite(update.gradient_norm) ? "its loss not finite"
                                             : "its loss and gradient norm not finite";
}

/// Losses and updates that are not finite.
void add_not_finite(const RunMetrics& run, std::vector<std::string>& warnings) {
  const bool told = ended_early(run) && run.end->how == How::not_finite;  // of the last one, with its samples
  if (run.left_out && !(told && run.left_out->updates == 1)) {
    const LeftOut& last = *run.left_out;
    warnings.push_back(
        fmt::format("{} left out; the last in step {} ({}), {}{}",
                    last.updates == 1 ? "an update was" : fmt::format("{} updates were", last.updates),
                    last.step, pattern_label(last.pattern), what_was_not_finite(last),
                    last.file.empty() ? "" : ", its samples in " + last.file));
    if (run.last_step && last.step == run.last_step->step) return;  // what its losses say, too
  }
  if (!run.last_step) return;
  for (const auto& of : run.last_step->losses) {
    if (std::isfinite(of.loss)) continue;
    warnings.push_back(fmt::format("the loss of {} is not finite at step {}", pattern_label(of.pattern),
                                   run.last_step->step));
  }
}

}  // namespace

double age_of(const RunMetrics& run, double now) {
  const double last = std::max(run.time, run.end ? run.end->time : 0);
  return last > 0 ? std::max(now - last, 0.0) : std::numeric_limits<double>::quiet_NaN();
}

bool is_silent(const RunMetrics& run, double now) {
  if (run.finished() || run.end) return false;
  return age_of(run, now) > std::max(60.0, 5 * seconds_a_line(run));  // false where either is not known
}

std::string end_in_a_word(const RunMetrics& run) {
  if (!ended_early(run)) return "";
  return run.end->how == How::failed ? "failed" : "stopped";
}

std::string describe_end(const RunMetrics& run) {
  if (!ended_early(run)) return "";
  const run::RunEnd& end = *run.end;
  switch (end.how) {
    case How::finished:
      return "";
    case How::stopped:
      return fmt::format("stopped by {}{}, saved; resume with --resume", end.signal,
                         end.step ? fmt::format(" at step {}", *end.step) : "");
    case How::not_finite:
      return fmt::format("stopped at {}; the state before it is saved in {} (docs/health.md)", end.message,
                         end.checkpoint);
    case How::failed:
      return fmt::format("failed{}: {}", end.step ? fmt::format(" after step {}", *end.step) : "",
                         end.message);
  }
  return "";
}

std::vector<std::string> find_warnings(const RunMetrics& run, double now) {
  std::vector<std::string> warnings;
  add_not_finite(run, warnings);
  if (run.went_back) {
    warnings.push_back(fmt::format("went back from step {} to {}, since ranks held different copies: {}",
                                   run.went_back->from, run.went_back->to, run.went_back->difference));
  }
  if (is_silent(run, now)) {
    const double usual = seconds_a_line(run);
    warnings.push_back(fmt::format("no line for {}{}: the run was killed, or is held up (log.txt says more)",
                                   format_seconds(age_of(run, now)),
                                   std::isfinite(usual) && usual > 0
                                       ? fmt::format(", and there was one every {}", format_seconds(usual))
                                       : ""));
  }
  if (run.finished() || run.end) return warnings;
  run.health ? add_health(run, warnings) : add_estimated_health(run, warnings);
  return warnings;
}

}  // namespace ratplus::report
