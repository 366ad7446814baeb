#include "lib/run/run_directory.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <exception>
#include <fstream>
#include <system_error>

#include "base/error.h"
#include "base/files/file_lock.h"
#include "base/files/new_directories.h"
#include "base/files/pending_file.h"
#include "base/units.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/run/metrics.h"
#include "lib/run/run_end.h"
#include "lib/session/settings_of_job.h"

namespace ratplus::run {
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
  stored.data.choose_micro_batch = job.data.choose_micro_batch;
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

/// The share of `steps` with the fewest digits whose part, floored, is `part`.
double share_for(std::int64_t part, std::int64_t steps) {
  const double exact = static_cast<double>(part) / static_cast<double>(steps);
  for (int digits = 1; digits < 17; ++digits) {
    const double share = std::stod(fmt::format("{:.{}g}", exact, digits));
    if (share < 1 && optim::warmup_steps({.steps = steps, .warmup = share}) == part) return share;
  }
  return std::nextafter(exact, 1.0);
}

/// Name the reason against a longer run from step `next` on; empty where all steps before it had the learning rates of
/// the longer schedule.
std::string obstacle_to_length(const config::JobConfig& stored, const config::JobConfig& job,
                               std::int64_t next) {
  const auto before = session::schedule_of(stored);
  const auto after = session::schedule_of(job);
  if (before.shape != after.shape) return "with another schedule.shape a run is not made longer";
  if (before.shape == optim::Shape::cosine) {
    return "a run is made longer only with schedule.shape = \"constant\", or with \"wsd\" before its decay: "
           "a "
           "cosine falls over all the steps";
  }
  const auto last = std::min(optim::decay_begin(before), optim::decay_begin(after));
  if (next > last) {
    return fmt::format(
        "a run is made longer only before its decay, which began at step {}, and {} were made; one goes on "
        "from a "
        "checkpoint of step {} or before, once newer ones are moved away",
        last, counted(next, "step"), last);
  }
  const auto warm = optim::warmup_steps(before);
  if (next > 0 && optim::warmup_steps(after) != warm) {
    return fmt::format(
        "a longer run would have warmed up over {}, and this one did over {}: keep that with --set "
        "schedule.warmup={}",
        counted(optim::warmup_steps(after), "step"), warm, share_for(warm, after.steps));
  }
  return "";
}

void check_same_computation(const checkpoint::Info& info, const config::JobConfig& job) {
  const auto stored = config::parse_job(info.job, (info.directory / checkpoint::manifest_name).string());
  auto before = with_free_settings(stored, job);
  std::string obstacle;
  if (before.schedule.epochs == 0 && job.schedule.epochs == 0 && before.schedule.steps < job.schedule.steps) {
    // An update that was made belongs to the step after the last whole one.
    obstacle = obstacle_to_length(before, job, info.step + (info.begun.empty() ? 0 : 1));
    if (obstacle.empty()) {
      before.schedule.steps = job.schedule.steps;
      before.schedule.warmup = job.schedule.warmup;
      before.schedule.decay = job.schedule.decay;
    }
  }
  if (before == job) return;
  fail(
      "{}: was made with other settings than the job's:\n  {}\n{}resume with the settings of {}, or start a "
      "new run in another job.directory (from these weights: job.kind = \"adapt\", job.from)",
      info.directory.string(), fmt::join(config::differences(before, job), "\n  "),
      obstacle.empty() ? "" : obstacle + "; or ",
      (info.directory.parent_path().parent_path() / "job.toml").string());
}

/// A link that leads nowhere would be followed, and fail, at the first save.
void require_no_dead_link(const char* key, const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_symlink(path, ignored) || fs::exists(path, ignored)) return;
  fail("{}: is a link to {}, which is not there ({}); is its file system mounted? Else remove the link",
       path.string(), fs::read_symlink(path, ignored).string(), key);
}

/// The step of the newest save that a run reports, in metrics.jsonl or in the record of its last end; 0: none.
std::int64_t last_saved_step(const fs::path& run) {
  std::int64_t step = step_saved_at_end(run);
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    if (line.find("\"checkpoint\"") == std::string::npos) continue;
    const auto head = head_of(line);
    if (head && head->kind == "checkpoint") step = std::max(step, head->step);
  }
  return step;
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

/// Names that file systems put into directories: of open files that were removed (NFS), of snapshots (GPFS, NetApp), and of
/// an ext4's top.
bool is_of_file_system(const std::string& name) {
  return name.starts_with(".nfs") || name.starts_with(".snapshot") || name == "lost+found";
}

/// In checkpoint.directory: the run that it belongs to.
constexpr const char* owner_name = ".run";

std::string time_of_day() {
  const std::time_t seconds = std::time(nullptr);
  std::tm local{};
  localtime_r(&seconds, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1,
                     local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec);
}

}  // namespace

void check_directories(const config::JobConfig& job) {
  require_no_dead_link("job.directory", job.job.directory);
  require_no_file_at("job.directory", job.job.directory);
  require_no_dead_link("the run's checkpoints", checkpoint::checkpoints_of(job.job.directory));
  if (job.checkpoint.directory.empty()) return;
  require_no_dead_link("checkpoint.directory", job.checkpoint.directory);
  require_no_file_at("checkpoint.directory", job.checkpoint.directory);
}

RunState look_at_run(const config::JobConfig& job, bool resume, const std::optional<fs::path>& checkpoint) {
  const fs::path run = job.job.directory;
  if (!resume) {
    if (checkpoint || fs::exists(run / "metrics.jsonl")) {
      fail(
          "{}: holds a run already ({}); continue it with --resume, or choose another directory with --set "
          "job.directory=...",
          run.string(),
          checkpoint ? checkpoint->filename().string() : "without a checkpoint, so from the start");
    }
    return {};
  }
  if (!checkpoint) {
    const auto saved = last_saved_step(run);
    if (saved == 0) return {};
    fail(
        "{}: no checkpoint is in {}, but the run reports one of step {}; mount its file system or bring "
        "it back, "
        "or, to begin anew, remove metrics.jsonl and starts/ or choose another job.directory",
        run.string(), checkpoint::checkpoints_of(run).string(), saved);
  }
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
    return;  // damaged ones are reported and skipped when the checkpoints are verified
  }
  check_same_computation(*info, job);
}

RunDirectory::RunDirectory(const config::JobConfig& job, const std::optional<RunTraces>& found)
    : file_(fs::path(job.job.directory) / "log.txt") {
  std::optional<NewDirectories> elsewhere;
  if (!job.checkpoint.directory.empty()) elsewhere.emplace(job.checkpoint.directory, "checkpoint.directory");
  NewDirectories run(job.job.directory, "job.directory");
  bool fresh = false;
  do {
    fresh = !fs::exists(file_);
    log_.emplace(file_);
  } while (lock() && !log_->has_name());  // another start has failed, and removed the file, between the two
  try {
    if (found && traces_of(job.job.directory) != *found)
      throw RunChanged(fmt::format("{}: another start has trained here meanwhile", job.job.directory));
    link_checkpoints(job);
    require_room_for_checkpoints(job);
    write_whole_file(fs::path(job.job.directory) / "job.toml", config::to_toml(job));
  } catch (...) {
    std::error_code ignored;
    if (fresh) fs::remove(file_, ignored);  // while it is locked
    if (!claimed_.empty()) fs::remove(claimed_, ignored);
    throw;
  }
  run.keep();
  if (elsewhere) elsewhere->keep();
}

/// A small file is written where checkpoints go, and removed.
void RunDirectory::require_room_for_checkpoints(const config::JobConfig& job) {
  const auto directory = checkpoint::checkpoints_of(job.job.directory);
  std::error_code reason;
  const bool made = fs::create_directories(directory, reason);
  if (reason)
    fail("{}: cannot be made: {}{}", directory.string(), reason.message(), write_advice(reason.value()));
  const auto probe = directory / ".writable";
  write_whole_file(probe, "checkpoints can be written here\n");
  fs::remove(probe, reason);
  if (made) fs::remove(directory, reason);
}

/// RUN/checkpoints is where all commands look, so checkpoints that go elsewhere are linked there.
void RunDirectory::link_checkpoints(const config::JobConfig& job) {
  const auto link = checkpoint::checkpoints_of(job.job.directory);
  if (job.checkpoint.directory.empty()) {
    // A link that an earlier start made, or that came with a copy of another run.
    if (fs::is_symlink(link)) claim(fs::canonical(link), link);
    return;
  }
  const auto target = fs::absolute(job.checkpoint.directory);
  std::error_code reason;
  if (fs::exists(fs::symlink_status(link))) {
    if (fs::equivalent(link, target, reason)) return claim(target, link);
    fail(
        "{}: this run's checkpoints are there, and checkpoint.directory is {}; move them there and remove {}",
        fs::weakly_canonical(link).string(), target.string(), link.string());
  }
  for (const auto& entry : fs::directory_iterator(target)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with(owner_name) || is_of_file_system(name)) continue;
    find_owner(target, link);
    fail("{}: is not empty, and checkpoint.directory is for the checkpoints of one run alone; give another",
         target.string());
  }
  claim(target, link);
  fs::create_directory_symlink(target, link, reason);
  if (reason) {
    fail("{}: cannot be made a link to {} (checkpoint.directory): {}", link.string(), target.string(),
         reason.message());
  }
}

/// The run that the directory's file, made by claim(), names; empty: none. Throws Error where that is another run than the link's,
/// is there, and has its checkpoints here: a run that was moved takes its directory along.
std::string RunDirectory::find_owner(const fs::path& target, const fs::path& link) {
  const auto run = fs::weakly_canonical(link.parent_path()).string();
  const auto file = target / owner_name;
  std::string owner = fs::exists(file) ? read_whole_file(file) : "";
  while (!owner.empty() && owner.back() == '\n') owner.pop_back();
  std::error_code ignored;
  const auto theirs = checkpoint::checkpoints_of(owner);
  // By another path it is the same run; a run that is gone, or has its checkpoints elsewhere, has left these.
  const bool own = owner == run || fs::equivalent(owner, run, ignored);
  const bool there =
      !owner.empty() && (fs::is_symlink(theirs, ignored) ? fs::equivalent(theirs, target, ignored)
                                                         : fs::exists(fs::path(owner) / "log.txt", ignored));
  if (there && !own) {
    fail(
        "{}: belongs to the run {}, and checkpoint.directory is for the checkpoints of one run alone; give "
        "another{}",
        target.string(), owner,
        fs::exists(fs::symlink_status(link))
            ? fmt::format(", or, where {} is a copy of that run, copy the checkpoints and remove the link {}",
                          run, link.string())
            : "");
  }
  return owner;
}

/// Makes the directory this run's own, before a checkpoint is in it, by a file that names the run.
void RunDirectory::claim(const fs::path& target, const fs::path& link) {
  const auto run = fs::weakly_canonical(link.parent_path()).string();
  const auto file = target / owner_name;
  const FileLock one_at_a_time(target / fmt::format("{}.lock", owner_name), target, "run",
                               FileLock::After::remove);
  const auto owner = find_owner(target, link);
  if (owner == run) return;
  write_whole_file(file, run + '\n');
  if (owner.empty()) claimed_ = file;
}

bool RunDirectory::lock() {
  const auto locked = try_lock(log_->descriptor(), Lock::exclusive);
  const int error = errno;
  if (locked == Locked::yes) return true;
  if (locked == Locked::held_elsewhere) {
    fail(
        "{}: another process is training in this run directory; wait for it, or choose another with --set "
        "job.directory=...",
        file_.parent_path().string());
  }
  // Lustre and NFS may be mounted without locks; that is no reason not to train.
  log(fmt::format("no lock on this file ({}): nothing keeps another process from training in this directory",
                  std::strerror(error)));
  return false;
}

void RunDirectory::log(const std::string& line) noexcept {
  try {
    log_->add(time_of_day() + "  " + line + '\n');
  } catch (const std::exception&) {  // too many lines wait, or there is no memory for one more
  }
}

std::string RunDirectory::trouble() {
  try {
    log_->retry();
  } catch (const Error&) {  // what trouble() says
  }
  return log_->trouble();
}

}  // namespace ratplus::run
