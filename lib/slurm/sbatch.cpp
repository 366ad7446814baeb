#include "lib/slurm/sbatch.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/error.h"

namespace ratplus::slurm {
namespace {

struct Finished {
  int status = 0;  ///< 127: there is no such program
  std::string output;
};

std::string read_to_end(int file) {
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(file, buffer.data(), buffer.size())) != 0;) {
    if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
    if (got < 0 && errno != EINTR) break;
  }
  return text;
}

/// Runs a program without a shell; its output and messages as one text, without the last line end.
Finished run(std::vector<std::string> words) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail("cannot start {}: {}", words[0], std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error = ::posix_spawnp(&process, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  Finished finished{.status = 127, .output = {}};
  if (error == 0) {
    finished.output = read_to_end(ends[0]);
    int status = 0;
    while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    finished.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  ::close(ends[0]);
  while (finished.output.ends_with('\n')) finished.output.pop_back();
  return finished;
}

}  // namespace

bool available() {
  constexpr int not_found = 127;  // a sbatch without a cluster says so itself when it is asked to submit
  return run({"sbatch", "--version"}).status != not_found;
}

std::string submit(const std::filesystem::path& script) {
  const Finished sbatch = run({"sbatch", "--parsable", script.string()});
  if (sbatch.status != 0) {
    fail("{}: sbatch has refused it (status {}): {}", script.string(), sbatch.status, sbatch.output);
  }
  // "123", or "123;cluster", after whatever a site's own plugins print.
  const auto line = sbatch.output.find_last_of('\n');
  const std::string last = line == std::string::npos ? sbatch.output : sbatch.output.substr(line + 1);
  return last.substr(0, last.find(';'));
}

std::string state_of(const std::string& job) {
  const Finished squeue = run({"squeue", "--noheader", "--jobs=" + job, "--format=%T"});
  return squeue.status == 0 ? squeue.output : "";
}

}  // namespace ratplus::slurm
