// FoundRun: what a job finds in its run directory when it starts, and what is to be said of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/checkpoint/verify.h"
#include "lib/config/job.h"
#include "lib/run/run_directory.h"
#include "lib/train/trainer.h"
#include "parallel/world.h"

namespace ratplus::train {

/// The run's state, and damaged checkpoints that are passed over. The same on all ranks.
struct FoundRun {
  run::RunState state;
  std::vector<checkpoint::Damaged> damaged;  ///< newest first
  std::int64_t verified_bytes = 0;           ///< of checkpoints, by all ranks
  double verified_seconds = 0;
  bool unverified = false;  ///< the checkpoint is to be verified while it is loaded (StartingPoint)
};

/// When the newest checkpoint of a run is compared with its checksums.
enum class Verify {
  now,            ///< before anything else; damaged ones are passed over
  while_loading,  ///< at once with its loading, so that its bytes come from the disk once; a finished run's now
};

/// Looks at the job's run directory, the root once for all ranks, and writes nothing. With `resume`, the checkpoint of the
/// state is the newest whole one, verified by all ranks, or the newest one to be verified while it is loaded; `progress` gets the bytes that this rank has read since its last
/// call. Throws Error, on all ranks alike, as run::check_directories, run::check_resumable and run::look_at_run do.
FoundRun find_run(const config::JobConfig& job, bool resume, const parallel::World& world,
                  const checkpoint::VerifyProgress& progress = {}, Verify verify = Verify::now);

/// Renames damaged checkpoints, so that nothing takes them for whole ones; returns what is to be said, two lines each.
std::vector<std::string> set_aside(const FoundRun& found, const parallel::World& world);

/// A warning where the run records a newer checkpoint (of recorded_step) than the newest one found: it may be on a file
/// system that is not mounted. Empty where it does not, and where damaged checkpoints are the reason.
std::string missing_checkpoint_note(const FoundRun& found, std::int64_t recorded_step);

/// What a user should know of this start: that there is nothing to resume, that a newer checkpoint is missing, that the
/// pattern is another than the weights', that data or tokenizer could not be compared. A line each.
std::vector<std::string> start_notes(const config::JobConfig& job, bool resume, const FoundRun& found,
                                     const StartingPoint& start);

/// Whether the run's last start came to its end: after the last save there are the validation, the export, the picture
/// and the record of the end. The root looks, once for all ranks.
bool is_complete(const config::JobConfig& job, const parallel::World& world);

/// What a job would begin with if it started now.
struct Outlook {
  bool finished = false;  ///< nothing is left to do
  std::string text;       ///< "48 steps from initial weights"
};

/// By one process, before ranks are asked for. Reads checkpoints' manifests, and writes nothing. Where the job waits for
/// another one (`waits`), weights that are not there yet are expected from it. Throws Error where it could not start.
Outlook look_ahead(const config::JobConfig& job, const TrainingData& data, bool waits);

}  // namespace ratplus::train
