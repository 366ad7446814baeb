// TrainDisplay: a training run on the terminal and in the run's log.
#pragma once

#include <memory>
#include <string>

#include "apps/progress_line.h"
#include "lib/config/job.h"
#include "lib/run/run_directory.h"
#include "lib/train/trainer.h"

namespace ratplus::apps {

/// One updating line on a terminal, plain lines elsewhere and in log.txt.
class TrainDisplay final : public train::TrainListener {
 public:
  TrainDisplay(const config::JobConfig& job, const parallel::World& world, run::RunDirectory* run);

  void on_start(session::Session& session, std::int64_t first_step) override;
  void on_phase(const std::string& text) override;
  void on_step(const run::StepMetrics& metrics, bool logged) override;
  void on_validation(const run::ValidationMetrics& metrics) override;
  void on_load(const run::LoadMetrics& metrics) override;
  void on_checkpoint(const run::CheckpointMetrics& metrics) override;
  void on_warning(const std::string& text) override;
  /// A line that stays.
  void say(const std::string& line);
  /// To the log alone, if it can be written: of what is printed elsewhere.
  void log(const std::string& message) noexcept;
  /// Why the command ends without being done: to the log, and as all errors to standard error.
  void fail(const std::string& message);
  /// Why lines are not in log.txt; empty where all are.
  std::string unwritten() const { return run_ == nullptr ? "" : run_->trouble(); }

 private:
  void print_memory_plan(const Arena& memory, std::int64_t available);

  const config::JobConfig& job_;
  const parallel::World& world_;
  run::RunDirectory* run_;  ///< null on ranks but the root
  ProgressLine progress_;
  std::string last_step_;
};

}  // namespace ratplus::apps
