// TensorboardLog: a run's metrics for TensorBoard (log.tensorboard = true).
#pragma once

#include <cstdint>
#include <filesystem>

#include "lib/run/metrics.h"
#include "lib/tensorboard/event_file.h"

namespace ratplus::run {

/// Writes into run/tensorboard/, a file for each start of the run, what MetricsFile writes into metrics.jsonl: tags are
/// its fields in groups, "loss/dense", "validation_loss/64,0,0", "throughput/tokens_per_second".
class TensorboardLog {
 public:
  /// For a run at `step`.
  TensorboardLog(const std::filesystem::path& run, std::int64_t step)
      : file_(run / "tensorboard", step + 1) {}

  void write(const StepMetrics& metrics);
  void write(const ValidationMetrics& metrics);
  void write(const CheckpointMetrics& metrics);

  /// Tries once more to write the events that wait.
  void retry() { file_.retry(); }
  /// Why events are not in the file yet; empty where all are.
  std::string trouble() const { return file_.trouble(); }

 private:
  tensorboard::EventFile file_;
};

}  // namespace ratplus::run
