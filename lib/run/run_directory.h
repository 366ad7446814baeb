// The run directory: effective job, log, metrics, checkpoints; nothing is written anywhere else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/files/append_file.h"
#include "lib/config/job.h"
#include "lib/run/run_traces.h"

namespace ratplus::run {

/// State of a job's run directory.
struct RunState {
  std::optional<std::filesystem::path> checkpoint;  ///< the newest, if the job is resumed and there is one
  std::int64_t step = 0;                            ///< of that checkpoint
  bool finished = false;                            ///< that is the last step: nothing is left to do
};

/// Throws Error if a file or a broken link is in the place of job.directory or checkpoint.directory.
void check_directories(const config::JobConfig& job);

/// Throws Error where the newest checkpoint was made with other settings than the job's, which does not go on with the
/// same computation (more steps do, where the learning rates so far are those of the longer schedule, too): said by its manifest, before
/// minutes go into verifying a large one.
void check_resumable(const config::JobConfig& job);

/// Looks before anything is written; `checkpoint` is the newest that can be resumed, if there is one. Without `resume`,
/// a directory that holds a run already is an Error; with it, so
/// is a checkpoint of a job that would not continue the same computation (the message lists the keys), and a run without
/// checkpoints whose metrics.jsonl names one: its file system may not be mounted.
RunState look_at_run(const config::JobConfig& job, bool resume,
                     const std::optional<std::filesystem::path>& checkpoint);

/// Opens a run directory for this process alone (Error if another one has it, as far as the file system has locks):
/// makes it, writes job.toml, links checkpoint.directory and claims it for this run, sees that checkpoints can be written, and
/// appends lines to log.txt. Root rank only.
class RunDirectory {
 public:
  /// Directories that it made are removed again where it throws. Throws RunChanged, with all left as it is, where another
  /// start has been there since `found`: once the directory is locked, none can be.
  explicit RunDirectory(const config::JobConfig& job, const std::optional<RunTraces>& found = std::nullopt);

  /// One line of log.txt, with the time of day before it. A log without room ends nothing: its lines are kept and tried
  /// again (AppendFile), and lost where they are too many.
  void log(const std::string& line) noexcept;
  /// Why lines are not in log.txt, after one more try to write them; empty where all are.
  std::string trouble();

 private:
  /// Whether the log is locked; false where the file system has no locks. Throws Error where another process has it.
  bool lock();
  void link_checkpoints(const config::JobConfig& job);
  static std::string find_owner(const std::filesystem::path& target, const std::filesystem::path& link);
  void claim(const std::filesystem::path& target, const std::filesystem::path& link);
  void require_room_for_checkpoints(const config::JobConfig& job);

  std::filesystem::path file_;
  std::filesystem::path claimed_;  ///< the owner's file that this start made; empty: none
  std::optional<AppendFile> log_;  ///< the lock is on it, and goes with it
};

}  // namespace ratplus::run
