// The fields of a run's metrics, listed once: for metrics.jsonl, its reader, TensorBoard and the curves of reports.
#pragma once

#include <cmath>
#include <string_view>

#include "lib/run/health.h"
#include "lib/run/metrics.h"

namespace ratplus::run {

/// How a field of metrics.jsonl is shown.
enum class Shown {
  position,  ///< the position of a measurement in the run, not a measurement
  value,     ///< a measurement without a curve of its own, since another field shows it better
  curve
};

struct Field {
  const char* name;        ///< in metrics.jsonl
  const char* group = "";  ///< of TensorBoard's tag, "group/name"; empty: not there
  Shown shown = Shown::value;
  bool negative_is_unknown = false;  ///< a negative number is written as null, and left out of TensorBoard
};

/// Calls visit(Field, value) for every field of a line of kind "step" but `updates` and `health`, in the line's order.
/// Here and below, Metrics may be const.
template <typename Metrics, typename Visit>
void for_each_step_field(Metrics& m, Visit&& visit) {
  visit(Field{"step", "", Shown::position}, m.step);
  visit(Field{"steps", "", Shown::position}, m.steps);
  visit(Field{"tokens", "schedule", Shown::position}, m.tokens);
  visit(Field{"learning_rate", "schedule", Shown::curve}, m.learning_rate);
  visit(Field{"tokens_per_second", "throughput", Shown::curve}, m.tokens_per_second);
  visit(Field{"seconds"}, m.seconds);
  visit(Field{"seconds_left", "", Shown::position}, m.seconds_left);
  visit(Field{"step_seconds", "throughput"}, m.step_seconds);
  visit(Field{"data_wait_seconds", "throughput"}, m.data_wait_seconds);
  visit(Field{"data_wait_share", "throughput", Shown::curve}, m.data_wait_share);
  visit(Field{"share_of_peak", "throughput", Shown::curve}, m.share_of_peak);
  visit(Field{"memory_bytes", "memory", Shown::curve}, m.memory_bytes);
  visit(Field{"memory_available_bytes", "memory", Shown::value, true}, m.memory_available_bytes);
  visit(Field{"host_memory_bytes", "memory", Shown::curve, true}, m.host_memory_bytes);
  visit(Field{"skipped_updates", "health", Shown::curve}, m.skipped_updates);
}

/// The fields of an element of `updates`.
template <typename Metrics, typename Visit>
void for_each_update_field(Metrics& m, Visit&& visit) {
  visit(Field{"pattern"}, m.pattern);
  visit(Field{"loss", "loss", Shown::curve}, m.loss);
  visit(Field{"gradient_norm", "gradient_norm", Shown::curve}, m.gradient_norm);
}

/// The fields of `health` in a line of kind "step".
template <typename Metrics, typename Visit>
void for_each_health_field(Metrics& m, Visit&& visit) {
  visit(Field{"rank_seconds"}, m.rank_seconds);
  visit(Field{"slowest_rank"}, m.slowest_rank);
  visit(Field{"slowest_host"}, m.slowest_host);
  visit(Field{"lag_seconds", "health"}, m.lag_seconds);
  visit(Field{"data_wait_share"}, m.data_wait_share);
  visit(Field{"pace_ratio"}, m.pace_ratio);
  visit(Field{"straggler"}, m.straggler);
  visit(Field{"slowdown"}, m.slowdown);
  visit(Field{"data_wait"}, m.data_wait);
}

/// The fields of a line of kind "checkpoint".
template <typename Metrics, typename Visit>
void for_each_checkpoint_field(Metrics& m, Visit&& visit) {
  visit(Field{"step", "", Shown::position}, m.step);
  visit(Field{"path"}, m.path);
  visit(Field{"seconds", "checkpoint"}, m.seconds);
  visit(Field{"stall_seconds", "checkpoint"}, m.stall_seconds);
  visit(Field{"background"}, m.background);
  visit(Field{"copy_seconds", "checkpoint"}, m.copy_seconds);
  visit(Field{"copied_bytes"}, m.copied_bytes);
}

/// Calls visit(name, number) for every number of an element of a validation's `results`.
template <typename Visit>
void for_each_result_number(const ValidationResult& result, Visit&& visit) {
  visit("loss", result.loss);
  visit("perplexity", std::exp(result.loss));
  if (!result.accuracy) return;
  visit("token_accuracy", result.accuracy->token);
  visit("completion_accuracy", result.accuracy->completion);
}

/// Whether a field of a line of kind "step" has this way of being shown; false for fields of later versions.
inline bool is_shown_as(Shown shown, std::string_view name) {
  bool found = false;
  const StepMetrics any;
  for_each_step_field(any, [&](const Field& field, const auto&) {
    found = found || (field.shown == shown && name == field.name);
  });
  return found;
}

}  // namespace ratplus::run
