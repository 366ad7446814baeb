#include "lib/slurm/sbatch.h"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/files/pending_file.h"

namespace ratplus::slurm {
namespace {

struct Finished {
  int status = 0;  ///< 127: there is no such program
  std::string output;
  std::string messages;  ///< on stderr, where a site's plugins talk even where all is well
};

/// A file in memory, for what a program writes: two of them need no reader meanwhile, as two pipes would.
class Written {
 public:
  explicit Written(const std::string& program)
      : program_(program), file_(::memfd_create("written", MFD_CLOEXEC)) {
    if (file_ < 0) fail("cannot start {}: {}", program_, std::strerror(errno));
  }
  Written(const Written&) = delete;
  Written& operator=(const Written&) = delete;
  ~Written() { ::close(file_); }

  int file() const { return file_; }

  /// Without the last line end.
  std::string text() const {
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0;
         (got = ::pread(file_, buffer.data(), buffer.size(), static_cast<off_t>(text.size()))) != 0;) {
      if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
      if (got < 0 && errno != EINTR) fail("cannot read the output of {}: {}", program_, std::strerror(errno));
    }
    while (text.ends_with('\n')) text.pop_back();
    return text;
  }

 private:
  std::string program_;
  int file_;
};

/// Runs a program without a shell.
Finished run(std::vector<std::string> words) {
  const Written output(words[0]), messages(words[0]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output.file(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, messages.file(), STDERR_FILENO);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error = ::posix_spawnp(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return {.status = 127, .output = {}, .messages = {}};
  int status = 0;
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          .output = output.text(),
          .messages = messages.text()};
}

std::string all_text(const Finished& finished) {
  return finished.output + (finished.output.empty() || finished.messages.empty() ? "" : "\n") +
         finished.messages;
}

/// The last line "123", or "123;cluster", among whatever a site's own plugins print; empty if there is none.
std::string job_number(const std::string& output) {
  std::string number;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const std::string begin = line.substr(0, line.find(';'));
    if (!begin.empty() && begin.find_first_not_of("0123456789") == std::string::npos) number = begin;
  }
  return number;
}

}  // namespace

bool available() {
  constexpr int not_found = 127;  // a sbatch without a cluster says so itself when it is asked to submit
  return run({"sbatch", "--version"}).status != not_found;
}

std::string submit(const std::filesystem::path& script) {
  const Finished sbatch = run({"sbatch", "--parsable", script.string()});
  if (sbatch.status != 0) {
    fail("{}: sbatch has refused it (status {}): {}", script.string(), sbatch.status, all_text(sbatch));
  }
  const std::string number = job_number(sbatch.output);
  if (number.empty()) {
    fail(
        "{}: sbatch printed no job number; squeue --me shows whether the job is in the queue. sbatch "
        "printed: {}",
        script.string(), all_text(sbatch));
  }
  return number;
}

std::string state_of(const std::string& job) {
  const Finished squeue = run({"squeue", "--noheader", "--jobs=" + job, "--format=%T"});
  return squeue.status == 0 ? squeue.output : "";
}

void check_not_queued(const std::filesystem::path& note) {
  if (!std::filesystem::exists(note)) return;
  std::string job = read_whole_file(note);
  job.erase(job.find_last_not_of('\n') + 1);
  const std::string state = state_of(job);
  if (!state.empty())
    fail("{}: job {} of this run is in the queue already ({}); wait for it, or scancel {}",
         note.parent_path().string(), job, state, job);
}

}  // namespace ratplus::slurm
