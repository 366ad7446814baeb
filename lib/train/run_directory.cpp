#include "lib/train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <ctime>
#include <set>
#include <sstream>
#include <system_error>
#include <vector>

#include "data/pending_file.h"
#include "kernels/error.h"
#include "lib/checkpoint/checkpoint.h"

namespace ratplus::train {
namespace {

namespace fs = std::filesystem;

/// "section.key = value" for every line of a job in TOML.
std::vector<std::string> settings_of(const config::JobConfig& job) {
  std::istringstream text(config::to_toml(job));
  std::vector<std::string> settings;
  std::string line;
  std::string section;
  while (std::getline(text, line)) {
    if (line.starts_with('[')) {
      section = line.substr(1, line.find(']') - 1);
    } else if (line.find('=') != std::string::npos) {
      settings.push_back(section + "." + line);
    }
  }
  return settings;
}

/// The checkpoint's job, with what may change between sessions of a run taken from the job at hand.
config::JobConfig with_free_settings(config::JobConfig stored, const config::JobConfig& job) {
  stored.job.directory = job.job.directory;
  stored.job.from = job.job.from;
  stored.job.threads = job.job.threads;
  stored.data.directory = job.data.directory;
  stored.data.micro_batch = job.data.micro_batch;
  stored.data.prefetch = job.data.prefetch;
  stored.parallel = job.parallel;
  stored.checkpoint = job.checkpoint;
  stored.log = job.log;
  return stored;
}

void check_same_computation(const fs::path& checkpoint, const std::string& stored, const config::JobConfig& job) {
  const auto before =
      settings_of(with_free_settings(config::parse_job(stored, (checkpoint / "manifest.json").string()), job));
  const auto after = settings_of(job);
  const std::set<std::string> known(before.begin(), before.end());
  std::string differences;
  for (const auto& setting : after) {
    if (!known.contains(setting)) differences += "\n  " + setting;
  }
  if (differences.empty()) return;
  fail("{}: was made with other settings than the job's:{}\nresume with the settings of {}, or start a new run in "
       "another job.directory",
       checkpoint.string(), differences, (checkpoint.parent_path().parent_path() / "job.toml").string());
}

std::string time_of_day() {
  const std::time_t seconds = std::time(nullptr);
  std::tm local{};
  localtime_r(&seconds, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1, local.tm_mday,
                     local.tm_hour, local.tm_min, local.tm_sec);
}

}  // namespace

RunState look_at_run(const config::JobConfig& job, bool resume) {
  const fs::path run = job.job.directory;
  const auto checkpoint = checkpoint::newest(run);
  if (!resume) {
    if (checkpoint || fs::exists(run / "metrics.jsonl")) {
      fail("{}: holds a run already{}; go on with it by --resume, or choose another directory with --set "
           "job.directory=...",
           run.string(), checkpoint ? fmt::format(" ({})", checkpoint->filename().string()) : "");
    }
    return {};
  }
  if (!checkpoint) return {};
  const auto info = checkpoint::read_info(*checkpoint);
  check_same_computation(*checkpoint, info.job, job);
  return {.checkpoint = checkpoint, .step = info.step, .finished = info.step >= job.schedule.steps};
}

RunDirectory::RunDirectory(const config::JobConfig& job) : file_(fs::path(job.job.directory) / "log.txt") {
  std::error_code reason;
  fs::create_directories(job.job.directory, reason);
  if (reason) fail("{}: cannot be made (job.directory): {}", job.job.directory, reason.message());
  lock_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (lock_ < 0) fail("{}: cannot be opened for writing; is job.directory writable?", file_.string());
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    fail("{}: another process is training in this run directory; wait for it, or choose another with --set "
         "job.directory=...",
         job.job.directory);
  }
  log_.open(file_, std::ios::app);
  data::write_whole_file(fs::path(job.job.directory) / "job.toml", config::to_toml(job));
}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);  // and unlocks
}

void RunDirectory::log(const std::string& line) { log_ << time_of_day() << "  " << line << '\n' << std::flush; }

}  // namespace ratplus::train
