// A training run's metrics, and their file metrics.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/files/append_file.h"
#include "lib/evaluation/accuracy.h"
#include "lib/run/health.h"

namespace ratplus::run {

/// One update of a step: one of a joint step's two, or the only one of a plain step.
struct UpdateMetrics {
  std::string pattern;       ///< PatternPlan::describe of what it attended with
  double loss = 0;           ///< mean cross-entropy of the counted positions, all ranks, before the update
  double gradient_norm = 0;  ///< global, before clipping
  bool updated = true;       ///< false: loss or norm are not finite, and the update was left out
};

struct StepMetrics {
  std::int64_t step = 0;    ///< schedule steps done, this one included
  std::int64_t steps = 0;   ///< of the whole run
  std::int64_t tokens = 0;  ///< seen so far; both updates of a step count once
  double learning_rate = 0;
  std::vector<UpdateMetrics> updates;
  std::int64_t skipped_updates = 0;  ///< left out since the run's first step, since they were not finite
  double tokens_per_second = 0;      ///< all ranks, since the last report
  double seconds = 0;                ///< since this process began to train
  double seconds_left = 0;           ///< to the last step, at the present rate
  /// Seconds that the steps of this rank waited for the loader since the last report.
  double data_wait_seconds = 0;
  double data_wait_share = 0;  ///< of the steps' time since the last report
  double step_seconds = 0;     ///< of a step, mean since the last report; validation and saving left out
  /// Operations of the step (update_operations) over what all processors could do meanwhile; NaN: peak unknown.
  double share_of_peak = 0;
  std::int64_t memory_bytes = 0;                       ///< the plan's, on the root's device
  std::int64_t memory_available_bytes = -1;            ///< of the root's device, now; -1: not known
  std::int64_t host_memory_bytes = -1;                 ///< of the root's process, now; -1: not known
  std::optional<HealthMetrics> health = std::nullopt;  ///< of logged steps
};

/// An update that was not made, since its loss or gradient norm is not finite.
struct NotFiniteMetrics {
  std::int64_t step = 0;   ///< that it belongs to
  std::size_t number = 0;  ///< of the update in that step, from 0
  UpdateMetrics update;
  std::string file;  ///< that lists the batch's samples; empty where it could not be written
};

/// Ranks held different copies of what is to be alike, and training went back to a checkpoint.
struct DifferingMetrics {
  std::int64_t step = 0;   ///< of the checkpoint, so that a later resume keeps the line
  std::int64_t found = 0;  ///< the step after which they differed
  std::string difference;
};

struct ValidationResult {
  std::string pattern;
  double loss = 0;                                    ///< mean cross-entropy; perplexity is its exponential
  std::optional<evaluation::Accuracy> accuracy = {};  ///< of samples with labels
};

struct ValidationMetrics {
  std::int64_t step = 0;
  std::int64_t tokens = 0;
  std::vector<ValidationResult> results;
  double seconds = 0;  ///< that it took
};

/// What every line of metrics.jsonl has.
struct LineHead {
  std::string kind;
  std::int64_t step = 0;
};
/// Of a line; none where it is no such line, cut short by a crash or written by something else.
std::optional<LineHead> head_of(const std::string& line);

/// Seconds since 1970, to the millisecond: the `time` of what a run writes.
double wall_time();

struct LoadMetrics {
  std::string path;
  std::int64_t bytes = 0;  ///< of weights and, where they were loaded too, moments: all ranks that share them
  double seconds = 0;      ///< of the slowest rank
  bool verified = false;   ///< meanwhile
};

struct CheckpointMetrics {
  std::int64_t step = 0;
  std::string path;
  double seconds = 0;             ///< from its beginning until it was complete
  double stall_seconds = 0;       ///< that steps were held up: by the copy, or by a save before it
  bool background = false;        ///< written while steps went on
  double copy_seconds = 0;        ///< of the stall, in the background: the copy to host memory
  std::int64_t copied_bytes = 0;  ///< by it, the root's
};

/// Appends to run/metrics.jsonl, one JSON object a line; `time` in each is when, in seconds since 1970. Lines for which
/// there is no room are kept and tried again (AppendFile). lib/report reads it, docs/watching.md lists the fields.
class MetricsFile {
 public:
  /// Opens the file for a run at `step`, with `begun` updates of the next step made or left out. Removes later lines,
  /// which a resumed run writes again, and those without a head_of().
  MetricsFile(const std::filesystem::path& run, std::int64_t step, std::size_t begun = 0);

  void write(const StepMetrics& metrics);
  void write(const ValidationMetrics& metrics);
  void write(const CheckpointMetrics& metrics);
  void write(const NotFiniteMetrics& metrics);
  void write(const DifferingMetrics& metrics);

  /// Tries once more to write the lines that wait.
  void retry() { out_->retry(); }
  /// Why lines are not in the file yet; empty where all are.
  std::string trouble() const { return out_->trouble(); }
  /// Step of the newest save that the file told of when it was opened, those that were taken out included; 0 if none.
  std::int64_t told_step() const { return told_step_; }
  /// Step of the last validation that the file holds; -1 if none.
  std::int64_t last_validation() const { return last_validation_; }

 private:
  void append(std::string line);
  void keep_until(std::int64_t step, std::size_t begun);

  std::filesystem::path file_;
  std::optional<AppendFile> out_;
  std::int64_t told_step_ = 0;
  std::int64_t last_validation_ = -1;
};

}  // namespace ratplus::run
