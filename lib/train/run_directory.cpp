#include "lib/train/run_directory.h"

#include <fmt/ranges.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <exception>
#include <system_error>

#include "data/pending_file.h"
#include "kernels/error.h"
#include "lib/checkpoint/checkpoint.h"

namespace ratplus::train {
namespace {

namespace fs = std::filesystem;

/// The checkpoint's job, with what may change between sessions of a run taken from the job at hand.
config::JobConfig with_free_settings(config::JobConfig stored, const config::JobConfig& job) {
  stored.job.directory = job.job.directory;
  stored.job.from = job.job.from;
  stored.job.device = job.job.device;
  stored.job.precision = job.job.precision;
  stored.job.deterministic = job.job.deterministic;
  stored.job.recompute = job.job.recompute;
  stored.job.threads = job.job.threads;
  stored.data.directory = job.data.directory;
  for (std::size_t i = 0; i < std::min(stored.data.sources.size(), job.data.sources.size()); ++i) {
    stored.data.sources[i].directory = job.data.sources[i].directory;
  }
  stored.data.micro_batch = job.data.micro_batch;
  stored.data.prefetch = job.data.prefetch;
  stored.schedule.tokens = job.schedule.tokens;  // another way to give the steps, which are compared
  if (stored.schedule.epochs > 0 && stored.schedule.epochs == job.schedule.epochs) {
    stored.schedule.steps = job.schedule.steps;  // follows from the data, which are compared
  }
  stored.parallel = job.parallel;
  stored.checkpoint = job.checkpoint;
  stored.log = job.log;
  stored.health = job.health;
  return stored;
}

void check_same_computation(const checkpoint::Info& info, const config::JobConfig& job) {
  const auto stored = config::parse_job(info.job, (info.directory / checkpoint::manifest_name).string());
  const auto before = with_free_settings(stored, job);
  if (before == job) return;
  fail(
      "{}: was made with other settings than the job's:\n  {}\nresume with the settings of {}, or start a "
      "new run in another job.directory (from these weights: job.kind = \"adapt\", job.from)",
      info.directory.string(), fmt::join(config::differences(before, job), "\n  "),
      (info.directory.parent_path().parent_path() / "job.toml").string());
}

/// The nearest part of the path that is there must be a directory.
void require_no_file_at(const char* key, const std::string& directory) {
  std::error_code ignored;
  auto there = fs::absolute(directory);
  while (there.has_relative_path() && !fs::exists(there, ignored)) there = there.parent_path();
  if (fs::is_directory(there, ignored) || !fs::exists(there, ignored)) return;
  fail("{} = {}: {} is a file, and a directory is wanted; choose another with --set {}=...", key, directory,
       there == fs::absolute(directory) ? "that" : there.string(), key);
}

std::string time_of_day() {
  const std::time_t seconds = std::time(nullptr);
  std::tm local{};
  localtime_r(&seconds, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1,
                     local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec);
}

}  // namespace

void check_directories(const config::JobConfig& job) {
  require_no_file_at("job.directory", job.job.directory);
  if (!job.checkpoint.dir.empty()) require_no_file_at("checkpoint.dir", job.checkpoint.dir);
}

RunState look_at_run(const config::JobConfig& job, bool resume, const std::optional<fs::path>& checkpoint) {
  const fs::path run = job.job.directory;
  if (!resume) {
    if (checkpoint || fs::exists(run / "metrics.jsonl")) {
      fail(
          "{}: holds a run already ({}); --resume goes on from there, or choose another directory with --set "
          "job.directory=...",
          run.string(),
          checkpoint ? checkpoint->filename().string() : "without a checkpoint, so from the start");
    }
    return {};
  }
  if (!checkpoint) return {};
  const auto info = checkpoint::read_info(*checkpoint);
  check_same_computation(info, job);
  return {.checkpoint = checkpoint, .step = info.step, .finished = info.step >= job.schedule.steps};
}

void check_resumable(const config::JobConfig& job) {
  const auto newest = checkpoint::newest(job.job.directory);
  if (!newest) return;
  std::optional<checkpoint::Info> info;
  try {
    info = checkpoint::read_info(*newest);
  } catch (const Error&) {
    return;  // what is damaged is told, and passed over, when the checkpoints are verified
  }
  check_same_computation(*info, job);
}

RunDirectory::RunDirectory(const config::JobConfig& job) : file_(fs::path(job.job.directory) / "log.txt") {
  std::error_code reason;
  fs::create_directories(job.job.directory, reason);
  if (reason) fail("{}: cannot be made (job.directory): {}", job.job.directory, reason.message());
  log_.emplace(file_);
  lock();
  link_checkpoints(job);
  data::write_whole_file(fs::path(job.job.directory) / "job.toml", config::to_toml(job));
}

/// RUN/checkpoints is where all commands look, so checkpoints that go elsewhere are linked there.
void RunDirectory::link_checkpoints(const config::JobConfig& job) {
  if (job.checkpoint.dir.empty()) return;
  const auto link = checkpoint::checkpoints_of(job.job.directory);
  const auto target = fs::absolute(job.checkpoint.dir);
  std::error_code reason;
  fs::create_directories(target, reason);
  if (reason) fail("{}: cannot be made (checkpoint.dir): {}", target.string(), reason.message());
  if (fs::exists(fs::symlink_status(link))) {
    if (fs::equivalent(link, target, reason)) return;
    fail("{}: this run's checkpoints are there, and checkpoint.dir is {}; move them there and remove {}",
         fs::weakly_canonical(link).string(), target.string(), link.string());
  }
  if (!fs::is_empty(target)) {
    fail("{}: is not empty, and checkpoint.dir is for the checkpoints of one run alone; give another",
         target.string());
  }
  fs::create_directory_symlink(target, link, reason);
  if (reason) {
    fail("{}: cannot be made a link to {} (checkpoint.dir): {}", link.string(), target.string(),
         reason.message());
  }
}

void RunDirectory::lock() {
  if (::flock(log_->descriptor(), LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  if (error == EWOULDBLOCK) {
    fail(
        "{}: another process is training in this run directory; wait for it, or choose another with --set "
        "job.directory=...",
        file_.parent_path().string());
  }
  // Lustre and NFS may be mounted without locks; that is no reason not to train.
  log(fmt::format("no lock on this file ({}): nothing keeps another process from training in this directory",
                  std::strerror(error)));
}

void RunDirectory::log(const std::string& line) noexcept {
  try {
    log_->add(time_of_day() + "  " + line + '\n');
  } catch (const std::exception&) {  // too many lines wait, or there is no memory for one more
  }
}

}  // namespace ratplus::train
