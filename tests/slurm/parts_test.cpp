// jobs/slurm/parts.sh: which starts of an array's task count as in vain; the script, squeue and scontrol are made up.
#include <doctest/doctest.h>
#include <fmt/core.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/files/pending_file.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using test::contains;
namespace fs = std::filesystem;

namespace {

/// An array's task 1, whose model is "rat". Its script writes `written` in the output and ends as stopped.
class Task {
 public:
  explicit Task(const std::string& written) {
    command("squeue", "echo RUNNING");
    command("scontrol", "exit 0");
    command("script", fmt::format("case $* in *--list*) echo rat && exit ;; esac\n"
                                  "mkdir -p \"$(dirname '{0}/{1}')\" && echo new >'{0}/{1}' && exit 130",
                                  (scratch_ / "out").string(), written));
  }

  /// The status of one start; its output in `log()`.
  int start() const {
    const auto line = fmt::format(
        "PATH='{0}':$PATH SLURM_JOB_ID=8 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=1 bash -c 'ratplus=true "
        "jobs={1}/jobs; "
        "source {1}/jobs/slurm/parts.sh; run_suffixes=(\"\" \"-d[0-9]*\"); run_part {0}/out {0}/script --nth "
        "1' >'{0}/log' 2>&1",
        scratch_.path().string(), RATPLUS_SOURCE_DIR);
    const int status = std::system(line.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string log() const { return read_whole_file(scratch_ / "log"); }

 private:
  void command(const std::string& name, const std::string& lines) const {
    write_whole_file(scratch_ / name, "#!/bin/sh\n" + lines + "\n");
    fs::permissions(scratch_ / name, fs::perms::owner_all);
  }

  test::ScratchDirectory scratch_;
};

constexpr int stopped_and_saved = 75;

}  // namespace

TEST_CASE("a task that only other tasks' files surround is queued twice, and then ends") {
  // Another model's name may begin with this one's, and end as its adapted ones do.
  for (const char* other : {"rnn/metrics.jsonl", "ratplus-joint-d16/metrics.jsonl", "data/train.h5"}) {
    CAPTURE(std::string(other));
    const Task task(other);
    CHECK(task.start() == stopped_and_saved);
    CHECK(task.start() == stopped_and_saved);
    CHECK(contains(task.log(), "queued again"));
    CHECK(task.start() == 1);
    CHECK(contains(task.log(), "stopped 3 times in a row before anything was done"));
  }
}

TEST_CASE("a task whose own model got on is queued again each time") {
  for (const char* own : {"rat/checkpoints/step-1/manifest.json", "rat-d64-10pc/metrics.jsonl",
                          "retrieval-1024/rat-d16-w0-i4/answers.jsonl"}) {
    CAPTURE(std::string(own));
    const Task task(own);
    for (int start = 0; start < 4; ++start) CHECK(task.start() == stopped_and_saved);
    CHECK(contains(task.log(), "queued again"));
  }
}
