// StartNotes: the records in starts/ of how a start of a run began and ended, wherever it ends.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "apps/train_display.h"
#include "lib/config/job.h"
#include "lib/run/run_end.h"
#include "lib/train/trainer.h"
#include "parallel/world.h"

namespace ratplus::apps {

class StartNotes {
 public:
  /// By all ranks together, once the run directory is this job's. From here on a failure that the watchdog finds is
  /// recorded, too.
  StartNotes(const config::JobConfig& job, const parallel::World& world, TrainDisplay& display);

  /// Records the start, by all ranks together. Throws Error, on all ranks alike.
  void begin(train::Trainer& trainer, const std::optional<std::filesystem::path>& weights_from);
  /// Records the end. A failure to write it, for example on a full disk, only prints a warning.
  void end(const run::RunEnd& end) noexcept { note_end(file_, end); }
  /// Records an error that ends the job, before it is printed; `trainer`: null where there was none yet. By any rank alone.
  void failure(train::Trainer* trainer, const std::string& message) noexcept;

 private:
  static void note_end(const std::filesystem::path& start_file, const run::RunEnd& end) noexcept;

  const config::JobConfig& job_;
  const parallel::World& world_;
  TrainDisplay& display_;
  std::filesystem::path file_;
  bool begun_ = false;  ///< the start is recorded
};

/// Names the files of the run that lack lines at its end, with the reason; empty if none does.
std::string lost_lines(train::Trainer* trainer, const TrainDisplay& display);

}  // namespace ratplus::apps
