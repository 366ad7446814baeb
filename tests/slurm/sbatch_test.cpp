// What is asked of Slurm's commands, and what of their answers is taken: sbatch and squeue are made up.
#include "lib/slurm/sbatch.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using test::contains;
using test::message_of;
namespace fs = std::filesystem;

namespace {

/// Commands of this test alone, found first while it lives.
class Commands {
 public:
  Commands() : before_(std::getenv("PATH")) {
    setenv("PATH", (scratch_.path().string() + ":" + before_).c_str(), 1);
  }
  ~Commands() { setenv("PATH", before_.c_str(), 1); }
  Commands(const Commands&) = delete;
  Commands& operator=(const Commands&) = delete;

  void make(const std::string& name, const std::string& lines) const {
    write_whole_file(scratch_ / name, "#!/bin/sh\n" + lines + "\n");
    fs::permissions(scratch_ / name, fs::perms::owner_all);
  }
  fs::path operator/(const std::string& name) const { return scratch_ / name; }

 private:
  std::string before_;
  test::ScratchDirectory scratch_;
};

}  // namespace

TEST_CASE("sbatch is there or not") {
  const test::ScratchDirectory empty;
  const std::string before = std::getenv("PATH");
  setenv("PATH", empty.path().c_str(), 1);
  CHECK(!slurm::available());
  setenv("PATH", before.c_str(), 1);
  const Commands commands;
  commands.make("sbatch", "exit 1");
  CHECK(slurm::available());
}

TEST_CASE("a script is submitted, and its job's number found among what a site's plugins say") {
  const Commands commands;
  for (const char* answer : {"4711", "4711;cluster",
                             "charged to: you'; echo '4711;cluster'; echo '99 hours are left' >&2; echo '"}) {
    CAPTURE(std::string(answer));
    commands.make("sbatch", "echo \"$@\" > " + (commands / "asked").string() + "; echo '" + answer + "'");
    CHECK(slurm::submit("/scratch/a run/submitted.sbatch") == "4711");
    CHECK(read_whole_file(commands / "asked") == "--parsable /scratch/a run/submitted.sbatch\n");
  }
}

TEST_CASE("an answer without a number, and a refusal, are reported in sbatch's words") {
  const Commands commands;
  commands.make("sbatch", "echo 'charged to: you'; echo '99 hours are left' >&2");
  const auto silent = message_of([] { slurm::submit("run.sbatch"); });
  CHECK(contains(silent, "run.sbatch: sbatch printed no job number"));
  CHECK(contains(silent, "charged to: you\n99 hours are left"));
  commands.make("sbatch", "echo 'invalid partition specified: gup' >&2; exit 1");
  const auto refused = message_of([] { slurm::submit("run.sbatch"); });
  CHECK(contains(refused, "run.sbatch: sbatch has refused it (status 1): invalid partition specified: gup"));
}

TEST_CASE("a job's state is squeue's word, and empty where there is no such job") {
  const Commands commands;
  commands.make("squeue", "echo \"$@\" > " + (commands / "asked").string() + "; echo PENDING");
  CHECK(slurm::state_of("4711") == "PENDING");
  CHECK(contains(read_whole_file(commands / "asked"), "--jobs=4711"));
  commands.make("squeue", "echo 'slurm moves on Monday' >&2");
  CHECK(slurm::state_of("4711").empty());
  commands.make("squeue", "echo 'slurm_load_jobs error' >&2; exit 1");
  CHECK(slurm::state_of("4711").empty());
}

TEST_CASE("a run whose job is in the queue is refused, and one whose job has gone is not") {
  const Commands commands;
  const auto note = commands / "submitted.job";
  commands.make("squeue", "[ \"$2\" = --jobs=4711 ] && echo PENDING");
  const auto refusal = [&] { return message_of([&] { slurm::check_not_queued(note); }); };
  CHECK(refusal() == "");
  write_whole_file(note, "4711\n");
  CHECK(contains(refusal(),
                 "job 4711 of this run is in the queue already (PENDING); wait for it, or scancel 4711"));
  write_whole_file(note, "4712\n");
  CHECK(refusal() == "");
}

TEST_CASE("a long answer on both streams does not block") {
  const Commands commands;
  commands.make(
      "sbatch",
      "head -c 300000 /dev/zero | tr '\\0' x >&2; head -c 300000 /dev/zero | tr '\\0' y; echo; echo 5");
  CHECK(slurm::submit("run.sbatch") == "5");
}
