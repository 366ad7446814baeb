// What a job runs in: OpenMP's settings, limits of the system, launchers that MPI does not know, a full /dev/shm.
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// One step of the tiny job on random tokens, in this environment ("A=1 B=2", or "ulimit -v 1;").
test::Result step(const std::string& environment, const std::string& options = "", int ranks = 0) {
  return test::shell(environment + " " +
                     test::command(fmt::format("bench step {} --micro-batches 1 --steps 1 --warmup 0 {} "
                                               "--set job.directory=unused data.directory=unused",
                                               test::Playground::get().job.string(), options),
                                   ranks));
}

/// A start record of a run of this environment.
nlohmann::json start_record(const std::string& environment, const fs::path& run) {
  const auto& playground = test::Playground::get();
  const auto result = test::shell(
      environment + " " +
      test::command(fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=1",
                                playground.job.string(), run.string(), playground.data.string())));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  for (const auto& entry : fs::directory_iterator(run / "starts")) {
    auto record = parse_json(read_whole_file(entry.path()));
    if (record.contains("environment")) return record;
  }
  return {};
}

}  // namespace

TEST_CASE("OpenMP's settings cannot leave a matrix product with fewer threads than it waits for") {
  for (const char* setting : {"OMP_DYNAMIC=true", "OMP_MAX_ACTIVE_LEVELS=0", "OMP_THREAD_LIMIT=1"}) {
    const auto result = step(std::string(setting) + " OMP_NUM_THREADS=2");
    CAPTURE(setting);
    CAPTURE(result.output);
    CHECK(result.status == 0);
  }
  const auto refused = step("OMP_THREAD_LIMIT=1", "--threads 2");
  CHECK(refused.status == 1);
  CHECK(test::contains(refused.output,
                       "2 CPU threads are asked for (job.threads or --threads), and "
                       "OMP_THREAD_LIMIT allows 1"));
}

TEST_CASE(
    "waiting threads sleep soon, unless the user has said how they wait; the command stays what it was") {
  const test::ScratchDirectory scratch;
  const auto by_itself = start_record("", scratch / "itself");
  CHECK(by_itself["environment"]["GOMP_SPINCOUNT"] == "1000");
  CHECK(by_itself["command"][0] == RATPLUS_PROGRAM);
  CHECK(by_itself["command"][1] == "train");
  CHECK(start_record("GOMP_SPINCOUNT=77", scratch / "count")["environment"]["GOMP_SPINCOUNT"] == "77");
  CHECK(
      !start_record("OMP_WAIT_POLICY=passive", scratch / "policy")["environment"].contains("GOMP_SPINCOUNT"));
}

TEST_CASE("several processes of a launcher that MPI does not connect are refused") {
  const std::string slurm = "SLURM_JOB_ID=5 SLURM_PROCID=0 SLURM_NTASKS=2 ";
  const auto singleton = step(slurm + "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2");
  CAPTURE(singleton.output);
  CHECK(singleton.status == 1);
  CHECK(test::contains(singleton.output, "2 processes were started (SLURM_STEP_NUM_TASKS = 2)"));
  CHECK(test::contains(singleton.output, "srun --mpi=pmix"));
  const auto other_mpi = step("PMI_SIZE=3 PMI_RANK=0");
  CHECK(other_mpi.status == 1);
  CHECK(test::contains(other_mpi.output, "3 processes were started (PMI_SIZE = 3)"));
  const auto second = step("PMI_SIZE=3 PMI_RANK=1");  // the first one has said it
  CHECK(second.status == 1);
  CHECK(second.output == "");
  const auto plan = test::shell(slurm + "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 " +
                                test::command("plan " + test::Playground::get().job.string()));
  CHECK(plan.status == 1);
  CHECK(test::contains(plan.output, "plan uses the cores of one machine, and 2 processes"));
}

TEST_CASE(
    "one process is right in a batch script, in the shell of salloc, and under mpirun whose daemon is a "
    "task") {
  const std::string batch = "SLURM_JOB_ID=5 SLURM_PROCID=0 SLURM_NTASKS=2 ";
  for (const std::string& right : {batch, batch + "SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=2",
                                   batch + "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1"}) {
    const auto result = step(right);
    CAPTURE(right);
    CAPTURE(result.output);
    CHECK(result.status == 0);
  }
  CHECK(step(batch + "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2", "", 1).status == 0);
}

#ifndef __SANITIZE_ADDRESS__  // clang's OpenMP, which builds with sanitizers take, cannot start there
TEST_CASE("a full /dev/shm ends nothing" * doctest::skip(test::shell("unshare -m true").status != 0)) {
  const auto& job = test::Playground::get().job;
  for (const int ranks : {0, 2}) {
    const auto result = test::shell(fmt::format(
        "unshare -m sh -c \"mount -t tmpfs -o size=8k none /dev/shm && {{ head -c 8192 /dev/zero > "
        "/dev/shm/full; {}; "
        "}}\"",
        test::command(
            "bench step " + job.string() +
                " --micro-batches 1 --steps 1 --warmup 0 --set job.directory=unused data.directory=unused",
            ranks)));
    CAPTURE(ranks);
    CAPTURE(result.output);
    CHECK(result.status == 0);
  }
}
#endif

#ifndef __SANITIZE_ADDRESS__  // whose shadow memory needs more address space than any limit
TEST_CASE("threads that cannot start end prepare with the limits to raise") {
  const test::ScratchDirectory scratch;
  std::string lines;
  for (int i = 0; i < 300; ++i) lines += fmt::format("{{\"text\": \"words of document {}\"}}\n", i);
  write_whole_file(scratch / "a.jsonl", lines);
  const auto result = test::shell(
      "ulimit -v 3000000; " +
      test::command(fmt::format("prepare {} --train-tokenizer --vocab-size 300 --validation-fraction 0.1 "
                                "--output {} --threads 4000",
                                (scratch / "a.jsonl").string(), (scratch / "out").string())));
  CHECK(result.status == 1);
  CHECK(test::contains(result.output, "cannot start a thread"));
  CHECK(test::contains(result.output, "ulimit -u, ulimit -v"));
}
#endif
