// ratplus submit: what it checks, and the script that it writes. tests/slurm tests scripts and sbatch by themselves, and
// tests/slurm.sh runs such scripts on a real Slurm; here sbatch and squeue are made up.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// A directory with commands of these names that run these lines.
void make_command(const fs::path& directory, const std::string& name, const std::string& lines) {
  fs::create_directories(directory);
  write_whole_file(directory / name, "#!/bin/sh\n" + lines + "\n");
  fs::permissions(directory / name, fs::perms::owner_all);
}

std::string arguments(const fs::path& run, const std::string& options) {
  const auto& playground = test::Playground::get();
  return fmt::format("submit {} --set job.directory={} data.directory={} {}", playground.job.string(),
                     run.string(), playground.data.string(), options);
}

test::Result submit(const fs::path& run, const std::string& options) {
  return test::ratplus(arguments(run, options));
}

/// The same where this directory's commands are found first.
test::Result submit_with(const fs::path& commands, const fs::path& run, const std::string& options) {
  return test::shell(
      fmt::format("PATH={}:$PATH {}", commands.string(), test::command(arguments(run, options))));
}

}  // namespace

TEST_CASE("--dry-run prints the script and writes nothing") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "runs" / "its one";
  const auto& playground = test::Playground::get();
  const auto result = test::ratplus(fmt::format(
      "submit {} --set \"job.directory={}\" data.directory={} --nodes 2 --ranks-per-node 3 --cpus-per-rank 4 "
      "--time 1:00:00 --stop-before 90 --partition gpu --account me --after 17 --sbatch=--qos=long "
      "--sbatch=--exclusive --launcher mpirun --dry-run",
      playground.job.string(), run.string(), playground.data.string()));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  for (const char* part :
       {"20 steps from initial weights", "2 nodes x 3 = 6 ranks; batch 12 = 6 x 2 micro-batches of 1",
        "#SBATCH --nodes=2\n", "#SBATCH --ntasks-per-node=3\n", "#SBATCH --cpus-per-task=4\n",
        "#SBATCH --time=1:00:00\n", "#SBATCH --signal=B:USR1@90\n", "#SBATCH --partition=gpu\n",
        "#SBATCH --account=me\n", "#SBATCH --dependency=afterok:17\n", "#SBATCH --qos=long\n",
        "#SBATCH --exclusive\n", "#SBATCH --requeue\n", "its one/slurm-%j.log\"\n", "launcher=mpirun\n",
        "scontrol requeue", "its one/submitted.toml'\n"}) {
    CAPTURE(part);
    CHECK(test::contains(result.output, part));
  }
  CHECK(!test::contains(result.output, "gpus-per-node="));
  CHECK(!fs::exists(run.parent_path()));  // nothing is written
}

TEST_CASE("a job may run on any of several numbers of nodes, with its batch") {
  const test::ScratchDirectory scratch;
  const auto result = submit(scratch / "run", "--nodes 1-3 --ranks-per-node 2 --dry-run");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  for (const char* part :
       {"1 node x 2 = 2 ranks; batch 12 = 2 x 6 micro-batches of 1\n",
        "2 nodes x 2 = 4 ranks; batch 12 = 4 x 3 micro-batches of 1\n",
        "3 nodes x 2 = 6 ranks; batch 12 = 6 x 2 micro-batches of 1\n", "#SBATCH --nodes=1-3\n"}) {
    CAPTURE(part);
    CHECK(test::contains(result.output, part));
  }
}

TEST_CASE("the script is bash, and is kept with the effective job in the run directory") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  make_command(scratch / "bin", "sbatch", "echo \"$@\" >> " + (scratch / "asked").string() + "; echo 4711");
  make_command(scratch / "bin", "squeue", "exit 1");  // no such job
  const auto result = submit_with(scratch / "bin", run, "log.every=7 --nodes 1 --ranks-per-node 2");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::contains(result.output, "submitted job 4711"));
  CHECK(test::contains(result.output, "slurm-4711.log"));
  CHECK(test::contains(read_whole_file(scratch / "asked"),
                       "--parsable " + (run / "submitted.sbatch").string()));
  CHECK(read_whole_file(run / "submitted.job") == "4711\n");
  CHECK(test::contains(read_whole_file(run / "submitted.toml"), "every = 7"));
  CHECK(test::shell("bash -n " + (run / "submitted.sbatch").string()).status == 0);
}

TEST_CASE("a run that is in the queue is not submitted again") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  make_command(scratch / "bin", "sbatch", "echo '4711;cluster'");
  make_command(scratch / "bin", "squeue", "echo PENDING");
  REQUIRE(submit_with(scratch / "bin", run, "--nodes 1 --ranks-per-node 1").status == 0);
  const auto again = submit_with(scratch / "bin", run, "--nodes 1 --ranks-per-node 1");
  CAPTURE(again.output);
  CHECK(again.status == 1);
  CHECK(test::contains(again.output, "job 4711 of this run is in the queue already (PENDING)"));
}

TEST_CASE("what sbatch refuses is told in its words") {
  const test::ScratchDirectory scratch;
  make_command(
      scratch / "bin", "sbatch",
      "if [ \"$1\" = --version ]; then exit 0; fi; echo 'invalid partition specified: gup' >&2; exit 1");
  make_command(scratch / "bin", "squeue", "exit 1");
  const auto result =
      submit_with(scratch / "bin", scratch / "run", "--nodes 1 --ranks-per-node 1 --partition gup");
  CAPTURE(result.output);
  CHECK(result.status == 1);
  CHECK(test::contains(result.output, "sbatch has refused it (status 1): invalid partition specified: gup"));
  CHECK(!fs::exists(scratch / "run" / "submitted.job"));
}

TEST_CASE("what cannot run is refused before it is queued, and nothing is written") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  struct Case {
    const char* options;
    int status;
    const char* message;
  };
  for (const Case& c : {
           Case{"--nodes 5 --ranks-per-node 1", 1, "data.batch = 12 is not divisible by 5 ranks"},
           Case{"--nodes 1-6 --ranks-per-node 1", 1, "with 5 nodes: "},
           Case{"--nodes 1-6 --ranks-per-node 1", 1, "Numbers of nodes that fit: 1, 2, 3, 4, 6\n"},
           Case{"parallel.ranks=4 --nodes 1-2 --ranks-per-node 2", 1, "Numbers of nodes that fit: 2\n"},
           Case{"--nodes 7-8 --ranks-per-node 1", 1, "None of these numbers of nodes fits"},
           Case{"--nodes 2-1 --ranks-per-node 1", 2, "give 1-2"},
           Case{"--nodes 2,4 --ranks-per-node 1", 2, "as 2-4"},
           Case{"parallel.ranks=4 --nodes 1 --ranks-per-node 2", 1, "parallel.ranks = 4"},
           Case{"parallel.shard=full parallel.shard_group=4 --nodes 3 --ranks-per-node 2", 1, "shard_group"},
           Case{"data.directory=nowhere --nodes 1 --ranks-per-node 1", 1, "nowhere"},
           Case{"job.kind=adapt job.recipe=plain job.from=runs/nothing --nodes 1 --ranks-per-node 1", 1,
                "runs/nothing: no such checkpoint"},
           Case{"data.bacth=4 --nodes 1 --ranks-per-node 1", 1, "data.batch"},
           Case{"job.device=cpu --nodes 1 --gpus-per-node 2", 1, "job.device = \"cpu\""},
           Case{"job.device=cuda --nodes 1 --ranks-per-node 2", 1, "needs GPUs"},
           Case{"--nodes 1", 2, "--gpus-per-node G, or --ranks-per-node R"},
           Case{"--ranks-per-node 2", 2, "nodes"},
           Case{"--nodes 0 --ranks-per-node 2", 2, "--nodes 0"},
           Case{"--nodes 1 --gpus-per-node 0", 2, "0 ranks a node"},
           Case{"--nodes 1 --gpus-per-node 2 --ranks-per-node 4", 2, "a rank takes a GPU"},
           Case{"--nodes 1 --ranks-per-node 1 --stop-before 0", 2, "--stop-before 0"},
           Case{"--nodes 1 --ranks-per-node 1 --time 0:04:00", 2, "--time 0:04:00 is 240 s"},
           Case{"--nodes 1 --ranks-per-node 1 --time 5", 2, "--time 5 is 300 s"},
           Case{"--nodes 1 --ranks-per-node 1 --time banana", 1, "\"banana\" is no time limit"},
           Case{"--nodes 1 --ranks-per-node 1 --time 24h", 1, "\"24h\" is no time limit"},
           Case{"--nodes 1 --ranks-per-node 1 --time 1-2-3", 1, "\"1-2-3\" is no time limit"},
           Case{"--nodes 1 --ranks-per-node 1 --after xyz", 2, "--after xyz"},
           Case{"--nodes 1 --ranks-per-node 1 --sbatch=--nodes=2", 2, "submit sets --nodes itself"},
           Case{"--nodes 1 --ranks-per-node 1 --sbatch \"--nodes 2\"", 2, "submit sets --nodes itself"},
           Case{"--nodes 1 --ranks-per-node 1 --sbatch=--tim=1", 2, "submit sets --time itself"},
           Case{"--nodes 1 --ranks-per-node 1 --sbatch=-N2", 2, "begins with --"},
           Case{"--nodes 1 --ranks-per-node 1 --sbatch qos=long", 2, "begins with --"},
           Case{"--nodes 1 --ranks-per-node 1 --launcher mpiexec", 1, "srun or mpirun"},
       }) {
    CAPTURE(std::string(c.options));
    const auto result = submit(run, c.options);
    CAPTURE(result.output);
    CHECK(result.status == c.status);
    CHECK(test::contains(result.output, c.message));
    CHECK(!fs::exists(run));
  }
}

TEST_CASE("weights that are to come are waited for with --after") {
  const test::ScratchDirectory scratch;
  const auto result =
      submit(scratch / "run",
             "job.kind=adapt job.recipe=plain job.from=runs/to-come --nodes 1 --ranks-per-node 1 "
             "--after 12 --dry-run");
  CAPTURE(result.output);
  CHECK(result.status == 0);
  CHECK(test::contains(result.output, "runs/to-come, which is not there yet"));
}

TEST_CASE("the pattern and the model of weights to come are theirs, unless given") {
  const test::ScratchDirectory scratch;
  const auto first = scratch / "first", bin = scratch / "bin";
  const auto& playground = test::Playground::get();
  make_command(bin, "sbatch", "echo 4711");
  make_command(bin, "squeue", "exit 1");
  const auto submit_adapt = [&](const std::string& run, const std::string& options) {
    const auto result = submit_with(bin, scratch / run,
                                    fmt::format("job.kind=adapt job.recipe=plain job.from={} {} --nodes 1 "
                                                "--ranks-per-node 1 --after 4711",
                                                first.string(), options));
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    return result.output;
  };
  const auto told = submit_adapt("adapt", "");
  CAPTURE(told);
  CHECK(test::contains(told, first.string() + " gives these when the job starts"));
  CHECK(test::contains(told, ": job.pattern, model.kv_heads, "));
  CHECK_FALSE(test::contains(submit_adapt("given", "job.pattern=dense"), "job.pattern"));

  REQUIRE(test::ratplus(fmt::format("train {} --set job.directory={} data.directory={} job.recipe=plain "
                                    "job.pattern=16,0,2 model.kv_heads=1 schedule.steps=1",
                                    playground.job.string(), first.string(), playground.data.string()))
              .status == 0);
  const auto at_start = [&](const std::string& run) {
    const auto result =
        test::ratplus(fmt::format("train {} --print-config", (scratch / run / "submitted.toml").string()));
    CHECK(result.status == 0);
    return result.output;
  };
  const auto adapt = at_start("adapt"), given = at_start("given");
  CAPTURE(adapt);
  CAPTURE(given);
  CHECK(test::contains(adapt, "\npattern = { dilation = 16, window = 0, sinks = 2 }\n"));
  CHECK(test::count(adapt, "dilation") == 2);  // log.validation_patterns too, and no other
  CHECK(test::contains(adapt, "\nkv_heads = 1\n"));
  CHECK(test::contains(given, "\npattern = { dilation = 1, window = 0, sinks = 0 }\n"));
  CHECK(test::contains(given, "\nkv_heads = 1\n"));
}

TEST_CASE("a run that is in the queue itself is waited for with --after") {
  const test::ScratchDirectory scratch;
  const auto first = scratch / "pretrain", bin = scratch / "bin";
  make_command(bin, "sbatch", "echo 4711");
  make_command(bin, "squeue", "exit 1");
  REQUIRE(submit_with(bin, first, "--nodes 1 --ranks-per-node 1").status == 0);
  REQUIRE(fs::exists(first / "submitted.toml"));
  const auto options = fmt::format(
      "job.kind=adapt job.recipe=plain job.from={} --nodes 1 --ranks-per-node 1 --dry-run", first.string());
  const auto result = submit(scratch / "adapt", options + " --after 4711");
  CAPTURE(result.output);
  CHECK(result.status == 0);
  CHECK(test::contains(result.output, first.string() + ", which is not there yet"));
  const auto without = submit(scratch / "adapt", options);
  CHECK(without.status == 1);
  CHECK(test::contains(without.output, "neither a checkpoint"));
}

TEST_CASE("a run goes on where it was, and a finished one is not submitted") {
  const test::ScratchDirectory scratch;
  const auto run = (scratch / "run").string();
  const auto& playground = test::Playground::get();
  const auto train =
      fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=4 checkpoint.every=2",
                  playground.job.string(), run, playground.data.string());
  REQUIRE(test::ratplus(train).status == 0);
  const auto options = "schedule.steps=4 --nodes 1 --ranks-per-node 1 --dry-run";
  const auto finished = submit(run, options);
  CAPTURE(finished.output);
  CHECK(finished.status == 0);
  CHECK(test::contains(finished.output, "finished already"));
  fs::remove_all(fs::path(run) / "checkpoints" / "step-00000004");
  CHECK(test::contains(submit(run, options).output, "resumes at step 2 of 4"));
  const auto changed = submit(run, "schedule.steps=6 --nodes 1 --ranks-per-node 1 --dry-run");
  CHECK(changed.status == 1);
  CHECK(test::contains(changed.output, "schedule.steps"));
}

TEST_CASE("the script queues a stopped job again, unless Slurm ends it, it failed, or it gets nowhere") {
  const test::ScratchDirectory scratch;
  const auto bin = scratch / "bin", run = scratch / "run", requeued = scratch / "requeued";
  make_command(bin, "sbatch", "echo 7");
  make_command(bin, "squeue", "exit 1");
  REQUIRE(submit_with(bin, run, "--nodes 1 --ranks-per-node 1").status == 0);
  make_command(bin, "scontrol", "echo \"$@\" >> " + requeued.string());
  // A batch job whose ranks end with this status, in this state of the job.
  const auto start = [&](int status, const std::string& state, const std::string& ranks = "true") {
    make_command(bin, "srun", fmt::format("{}; exit {}", ranks, status));
    make_command(bin, "squeue", "echo " + state);
    return test::shell(
        fmt::format("PATH={}:$PATH SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NODELIST=here bash {}",
                    bin.string(), (run / "submitted.sbatch").string()));
  };
  const auto requeues = [&] {
    return fs::exists(requeued) ? test::count(read_whole_file(requeued), "requeue 7") : 0;
  };
  CHECK(start(0, "RUNNING").status == 0);
  CHECK(start(75, "COMPLETING").status == 75);  // cancelled
  const auto failed = start(3, "RUNNING");
  CHECK(failed.status == 3);
  CHECK(test::contains(failed.output, "failed with status 3"));
  CHECK(requeues() == 0);

  CHECK(start(75, "RUNNING").status == 75);
  CHECK(start(75, "RUNNING").status == 75);
  CHECK(requeues() == 2);
  const auto stuck = start(75, "RUNNING");
  CAPTURE(stuck.output);
  CHECK(stuck.status == 1);
  CHECK(test::contains(stuck.output, "stopped 3 times in a row before anything was done"));
  CHECK(requeues() == 2);

  for (int step = 1; step <= 5; ++step) {  // one that gets on is queued again as often as it takes
    const auto saved = fmt::format("mkdir -p {}/checkpoints/step-0000000{}", run.string(), step);
    CHECK(start(75, "RUNNING", saved).status == 75);
  }
  CHECK(requeues() == 7);
}

TEST_CASE(
    "with --check, ratplus check comes first at each start, and what stands out ends the job untrained") {
  const test::ScratchDirectory scratch;
  const auto bin = scratch / "bin", run = scratch / "run", asked = scratch / "asked";
  make_command(bin, "sbatch", "echo 7");
  make_command(bin, "squeue", "exit 1");
  const auto dry = submit(run, "--nodes 1 --ranks-per-node 1 --dry-run");
  CHECK_FALSE(test::contains(dry.output, "\ncheck_first=true\n"));
  CHECK(test::contains(submit(run, "--nodes 1 --ranks-per-node 1 --check --dry-run").output,
                       "\ncheck_first=true\n"));
  REQUIRE(submit_with(bin, run, "--nodes 1 --ranks-per-node 1 --check").status == 0);
  make_command(bin, "squeue", "echo RUNNING");
  make_command(bin, "scontrol", "echo requeue >> " + asked.string());
  // Ranks that note their command; check ends with this status, training with 0.
  const auto start = [&](int status, const std::string& check = "true") {
    fs::remove(asked);
    make_command(bin, "srun",
                 fmt::format("while [ \"${{1#-}}\" != \"$1\" ]; do shift; done; echo \"$2\" >> {}; "
                             "[ \"$2\" = train ] && exit 0; {}; exit {}",
                             asked.string(), check, status));
    return test::shell(
        fmt::format("PATH={}:$PATH SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NODELIST=here bash {}",
                    bin.string(), (run / "submitted.sbatch").string()));
  };
  CHECK(start(0).status == 0);
  CHECK(read_whole_file(asked) == "check\ntrain\n");
  const auto outlier = start(5, "echo gpu 3 of n7 is slow");
  CAPTURE(outlier.output);
  CHECK(outlier.status == 5);
  CHECK(read_whole_file(asked) == "check\n");
  CHECK(test::contains(outlier.output, "gpu 3 of n7 is slow\n"));
  CHECK(test::contains(outlier.output,
                       "something stands out in ratplus check (above), and nothing was trained"));
  const auto failed = start(1);
  CHECK(failed.status == 1);
  CHECK(read_whole_file(asked) == "check\n");
  CHECK(test::contains(failed.output, "ratplus check failed with status 1"));
  // A signal of the batch job during the check: nothing was saved, and the job is queued again.
  const auto stopped = start(138, "kill -USR1 $PPID; sleep 0.5");
  CAPTURE(stopped.output);
  CHECK(stopped.status == 75);
  CHECK(read_whole_file(asked) == "check\nrequeue\n");
}

TEST_CASE("a task of an array is queued again by itself, and Slurm is asked again where it does not answer") {
  const test::ScratchDirectory scratch;
  const auto bin = scratch / "bin", run = scratch / "run", asked = scratch / "asked";
  make_command(bin, "sbatch", "echo 7");
  make_command(bin, "squeue", "exit 1");
  REQUIRE(submit_with(bin, run, "--nodes 1 --ranks-per-node 1").status == 0);
  make_command(bin, "srun", "exit 75");
  make_command(bin, "sleep", "echo sleep \"$@\" >> " + asked.string());
  // A command that notes how it is called, fails the first `failures` times, and then runs these lines.
  const auto make_restarting = [&](const std::string& name, int failures, const std::string& lines) {
    make_command(bin, name,
                 fmt::format("echo {0} \"$@\" >> {1}; [ $(grep -c ^{0} {1}) -gt {2} ] || exit 1; {3}", name,
                             asked.string(), failures, lines));
  };
  const auto start = [&] {
    fs::remove(asked);
    const auto result = test::shell(
        fmt::format("PATH={}:$PATH SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=3 SLURM_NTASKS=1 "
                    "SLURM_JOB_NODELIST=here bash {}",
                    bin.string(), (run / "submitted.sbatch").string()));
    CHECK(result.status == 75);
    return result.output;
  };
  const auto times = [&](const std::string& what) { return test::count(read_whole_file(asked), what); };

  make_restarting("squeue", 2, "echo RUNNING");
  make_restarting("scontrol", 2, "");
  CHECK(test::contains(start(), "batch: queued again"));
  CHECK(times("squeue --noheader --jobs=7_3 ") == 5);
  CHECK(times("scontrol requeue 7_3\n") == 3);
  CHECK(times("sleep 5\n") == 4);
  CHECK(read_whole_file(run / ".starts-in-vain") == "1\n");  // one start, however often Slurm was asked

  make_restarting("squeue", 2, "echo COMPLETING");
  CHECK(test::contains(start(), "Slurm is ending this job itself (COMPLETING)"));
  CHECK(times("scontrol") == 0);

  make_restarting("squeue", 1000, "");
  CHECK(test::contains(start(), "has not queued this job again within a minute"));
  CHECK(times("sleep 5\n") == 12);
  CHECK(times("scontrol") == 0);
}

TEST_CASE(
    "a job that does not fit its GPUs is refused with what does, before anything is asked of the queue") {
  const auto submit_1b = [](const std::string& options) {
    return test::ratplus(
        "submit " RATPLUS_SOURCE_DIR "/configs/pretrain/1b.toml --nodes 1 --gpus-per-node 8 " + options);
  };
  const auto large = submit_1b("--gpu h100 --dry-run --set data.micro_batch=16");
  CAPTURE(large.output);
  CHECK(large.status == 1);
  CHECK(test::contains(large.output, "data.micro_batch = 4"));
  CHECK(test::contains(large.output, "GiB"));
  const auto unknown = submit_1b("--gpu h900 --dry-run");
  CHECK(unknown.status != 0);
  CHECK(test::contains(unknown.output, "h100"));
  const auto without = test::ratplus("submit " RATPLUS_SOURCE_DIR
                                     "/configs/pretrain/1b.toml --nodes 1 --ranks-per-node 2 --gpu h100");
  CHECK(without.status == 2);
  CHECK(test::contains(without.output, "--gpus-per-node"));
}

TEST_CASE("a % of the run directory is none of Slurm's patterns") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "100%j";
  const auto result = submit(run, "--nodes 1 --ranks-per-node 1 --dry-run");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(test::contains(result.output, "100%%j/slurm-%j.log\n"));
  CHECK(test::contains(result.output, "100%j/submitted.toml"));  // no pattern elsewhere
}

TEST_CASE("a dry run for a kind of GPU needs no program built for GPUs") {
  const test::ScratchDirectory scratch;
  const auto result = submit(scratch / "run", "--nodes 1 --gpus-per-node 2 --gpu h100 --dry-run");
  CAPTURE(result.output);
  CHECK(result.status == 0);
  CHECK(test::contains(result.output, "tokens/s a GPU expected"));
  CHECK(test::contains(result.output, "#SBATCH --gpus-per-node=2\n"));
}

TEST_CASE("a word that a batch script adds itself does no harm, or is refused before ranks are started") {
  const test::ScratchDirectory scratch;
  const auto bin = scratch / "bin", run = scratch / "run";
  const auto& playground = test::Playground::get();
  make_command(bin, "srun",
               R"(while [ "${1#-}" != "$1" ]; do shift; done; shift; echo "ranks: $*"; exec )" +
                   std::string(RATPLUS_PROGRAM) + R"( "$@")");
  const auto start = [&](const std::string& script, const std::string& words) {
    return test::shell(
        fmt::format("cd {} && PATH={}:$PATH RATPLUS={} SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NODELIST=here "
                    "SLURM_ARRAY_TASK_ID=3 bash jobs/slurm/{} {}",
                    RATPLUS_SOURCE_DIR, bin.string(), RATPLUS_PROGRAM, script, words));
  };
  const auto job = playground.job.string();
  const auto settings = fmt::format("--set data.directory={} schedule.steps=1 job.directory={}",
                                    playground.data.string(), run.string());

  const auto printed = start("pretrain.sbatch", fmt::format("{} --print-config {}", job, settings));
  CAPTURE(printed.output);
  CHECK(printed.status == 1);
  CHECK(test::contains(printed.output, "--print-config: prints the job and trains nothing"));
  CHECK_FALSE(test::contains(printed.output, "ranks: "));

  const auto trained = start("pretrain.sbatch", fmt::format("{} --resume {} --resum", job, settings));
  CAPTURE(trained.output);
  CHECK(trained.status == 0);
  CHECK(test::contains(trained.output, fmt::format("ranks: train {} --resume {}\n", job, settings)));
  const auto again = start("pretrain.sbatch", fmt::format("{} --resume {}", job, settings));
  CHECK(again.status == 0);
  CHECK(test::contains(again.output, "finished already"));
  const auto adapted = start(
      "adapt_sweep.sbatch",
      fmt::format("{} --resume {} job.kind=adapt job.recipe=plain job.from={}", job, settings, run.string()));
  CAPTURE(adapted.output);
  CHECK(adapted.status == 0);
  CHECK(fs::exists(scratch / "sweep" / "d8-w0-i4" / "metrics.jsonl"));

  const auto evaluated = start("eval.sbatch", run.string() + " --json elsewhere.json");
  CAPTURE(evaluated.output);
  CHECK(evaluated.status == 1);
  CHECK(test::contains(evaluated.output, "--json: the results go to RUN/evaluation.json"));
  CHECK_FALSE(test::contains(evaluated.output, "ranks: "));
}

TEST_CASE("batch scripts explain themselves, from any directory") {
  const fs::path scripts = fs::path(RATPLUS_SOURCE_DIR) / "jobs/slurm";
  int seen = 0;
  for (const auto& entry : fs::directory_iterator(scripts)) {
    if (entry.path().extension() != ".sbatch") continue;
    ++seen;
    const auto result = test::shell("cd / && bash " + entry.path().string() + " --help");
    CAPTURE(result.output);
    CHECK(result.status == 0);
    CHECK(test::contains(result.output, "  sbatch "));
    CHECK(test::contains(result.output, entry.path().filename().string()));
    CHECK(!test::contains(result.output, "SBATCH --"));
  }
  CHECK(seen == 7);
}
