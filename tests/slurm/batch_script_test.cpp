// A training job as a batch script: its directives, what is refused, and time limits. tests/slurm.sh runs such scripts on a
// real Slurm.
#include "lib/slurm/batch_script.h"

#include <doctest/doctest.h>

#include <limits>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "lib/slurm/batch_functions.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using slurm::Resources;
using test::contains;
using test::message_of;

namespace {

slurm::BatchScript small_script() {
  return {.name = "ratplus-run",
          .working_directory = "/work",
          .program = "/opt/ratplus",
          .job_file = "/scratch/run/submitted.toml",
          .log_directory = "/scratch/run",
          .launcher = slurm::Launcher::srun,
          .check_first = false,
          .resources = {}};
}

/// The lines that sbatch reads.
std::string directives(const slurm::BatchScript& script) {
  std::string found, text = script.text();
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = text.find('\n', begin);
    if (text.compare(begin, 8, "#SBATCH ") == 0) found += text.substr(begin, end - begin + 1);
    begin = end + 1;
  }
  return found;
}

std::string refusal(const Resources& resources) {
  return message_of([&] { slurm::check(resources); });
}

}  // namespace

TEST_CASE("a script asks for what is set, and leaves the rest to the cluster") {
  CHECK(directives(small_script()) ==
        "#SBATCH --job-name=ratplus-run\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --signal=B:USR1@300\n"
        "#SBATCH --requeue\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --chdir=/work\n"
        "#SBATCH --output=/scratch/run/slurm-%j.log\n");
  auto script = small_script();
  script.resources = {.nodes = 2,
                      .ranks_per_node = 3,
                      .gpus_per_node = 4,
                      .cpus_per_rank = 5,
                      .time = "1:00:00",
                      .partition = "gpu",
                      .account = "me",
                      .after = "17",
                      .stop_before = 90,
                      .more = {"--qos=long", "--exclusive"}};
  CHECK(directives(script) ==
        "#SBATCH --job-name=ratplus-run\n"
        "#SBATCH --partition=gpu\n"
        "#SBATCH --account=me\n"
        "#SBATCH --nodes=2\n"
        "#SBATCH --ntasks-per-node=3\n"
        "#SBATCH --gpus-per-node=4\n"
        "#SBATCH --cpus-per-task=5\n"
        "#SBATCH --time=1:00:00\n"
        "#SBATCH --signal=B:USR1@90\n"
        "#SBATCH --dependency=afterok:17\n"
        "#SBATCH --kill-on-invalid-dep=yes\n"
        "#SBATCH --requeue\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --chdir=/work\n"
        "#SBATCH --output=/scratch/run/slurm-%j.log\n"
        "#SBATCH --qos=long\n"
        "#SBATCH --exclusive\n");
}

TEST_CASE("paths with blanks, quotes and Slurm's patterns stay one word, or are refused") {
  auto script = small_script();
  script.program = "/opt/it's one/ratplus";
  script.job_file = "/scratch/100%j run/submitted.toml";
  script.log_directory = "/scratch/100%j run";
  const auto text = script.text();
  CHECK(contains(text, "\nratplus='/opt/it'\\''s one/ratplus'\n"));
  CHECK(contains(text, "\ntrain '/scratch/100%j run/submitted.toml'\n"));
  CHECK(contains(text, "#SBATCH --output=\"/scratch/100%%j run/slurm-%j.log\"\n"));
  for (const char* path : {"/scratch/a\"b", "/scratch/a\\b", "/scratch/a\nb"}) {
    script.log_directory = path;
    const auto message = message_of([&] { static_cast<void>(script.text()); });
    CHECK(contains(message, path));
    CHECK(contains(message, "rename it"));
  }
}

TEST_CASE("a script holds the functions of jobs/slurm/batch.sh, and is bash") {
  const test::ScratchDirectory scratch;
  auto script = small_script();
  script.launcher = slurm::Launcher::mpirun;
  const auto text = script.text();
  const auto functions = read_whole_file(RATPLUS_SOURCE_DIR "/jobs/slurm/batch.sh");
  CHECK(functions == slurm::batch_functions);
  CHECK(contains(text, functions));
  CHECK(contains(text, "\nlauncher=mpirun\n"));
  CHECK(text.starts_with("#!/usr/bin/env bash\n"));
  write_whole_file(scratch / "job.sbatch", text);
  CHECK(std::system(("bash -n " + (scratch / "job.sbatch").string()).c_str()) == 0);
}

TEST_CASE("launchers are known by name") {
  for (const auto launcher : {slurm::Launcher::srun, slurm::Launcher::mpirun})
    CHECK(slurm::parse_launcher(slurm::to_string(launcher)) == launcher);
  CHECK(contains(message_of([] { slurm::parse_launcher("mpiexec"); }), "srun or mpirun"));
}

TEST_CASE("ranks are placed node by node") {
  const Resources resources{.nodes = 3, .ranks_per_node = 2};
  CHECK(resources.rank_nodes(3) == std::vector<int>{0, 0, 1, 1, 2, 2});
  CHECK(resources.possible_nodes() == std::vector<int>{3});
}

TEST_CASE("nodes are a number, or the least and the most") {
  Resources resources;
  resources.set_nodes("3");
  CHECK(resources.nodes_text() == "3");
  CHECK(resources.possible_nodes() == std::vector<int>{3});
  resources.set_nodes("2-4");
  CHECK(resources.nodes_text() == "2-4");
  CHECK(resources.possible_nodes() == std::vector<int>{2, 3, 4});
  auto script = small_script();
  script.resources = resources;
  script.resources.ranks_per_node = 3;
  script.resources.cpus_per_rank = 5;
  CHECK(
      contains(directives(script), "#SBATCH --nodes=2-4\n#SBATCH --mincpus=15\n#SBATCH --cpus-per-task=5\n"));
  CHECK(contains(script.text(), "\nranks_per_node=3\n"));
  CHECK(!contains(small_script().text(), "\nranks_per_node="));
  for (const char* wrong : {"", "two", "2-", "-", "2-4-6", "2,4", "2 4", "4x"}) {
    CAPTURE(std::string(wrong));
    CHECK(contains(message_of([&] { resources.set_nodes(wrong); }), "a number of nodes is wanted"));
  }
}

TEST_CASE("time limits in every form that sbatch takes, in seconds") {
  struct Case {
    const char* text;
    std::int64_t seconds;
  };
  for (const Case& limit : {Case{"90", 5400},
                            {"0:30", 30},
                            {"90:30", 5430},
                            {"24:00:00", 86400},
                            {"1-0", 86400},
                            {"2-12", 216000},
                            {"2-12:30", 217800},
                            {"2-12:30:15", 217815},
                            {"UNLIMITED", -1},
                            {"INFINITE", -1}}) {
    CAPTURE(std::string(limit.text));
    CHECK(slurm::limit_seconds(limit.text) == limit.seconds);
  }
  for (const char* wrong :
       {"", "banana", "24h", "1-2-3", "-5", "1:", ":1", "1:2:3:4", "1-", "1-2:3:4:5", "1 0", "unlimited"}) {
    CAPTURE(std::string(wrong));
    CHECK(contains(message_of([&] { slurm::limit_seconds(wrong); }), "is no time limit of Slurm's"));
  }
}

TEST_CASE("resources within their ranges are taken, and each that is outside is refused by its option") {
  CHECK(refusal({}) == "");
  CHECK(
      refusal({.nodes = 100, .ranks_per_node = 8, .gpus_per_node = 8, .time = "5:01", .stop_before = 300}) ==
      "");
  CHECK(refusal({.time = "UNLIMITED", .stop_before = 65535}) == "");
  CHECK(refusal({.after = "17,18:19_2", .more = {"--qos=long", "--nodelist=a"}}) == "");
  CHECK(contains(refusal({.nodes = 0}), "--nodes 0"));
  CHECK(contains(refusal({.nodes = 100'001}), "--nodes 100001"));
  CHECK(contains(refusal({.nodes = 4, .most_nodes = 2}), "give 2-4"));
  CHECK(contains(refusal({.nodes = 1, .most_nodes = 2000}), "1000 numbers at most"));
  CHECK(contains(refusal({.nodes = 1, .most_nodes = 1000, .ranks_per_node = 10'000}), "more than 1048576"));
  CHECK(contains(refusal({.ranks_per_node = 0}), "0 ranks a node"));
  CHECK(contains(refusal({.ranks_per_node = 10'001}), "10001 ranks a node"));
  CHECK(contains(refusal({.gpus_per_node = -1}), "not negative"));
  CHECK(contains(refusal({.cpus_per_rank = -1}), "not negative"));
  CHECK(contains(refusal({.ranks_per_node = 4, .gpus_per_node = 2}), "a rank takes a GPU"));
  CHECK(contains(refusal({.nodes = 100'000, .ranks_per_node = 10'000}), "more than 1048576 ranks"));
  CHECK(contains(refusal({.stop_before = 0}), "--stop-before 0"));
  CHECK(contains(refusal({.stop_before = 65536}), "--stop-before 65536"));
  CHECK(contains(refusal({.time = "5:00", .stop_before = 300}), "--time 5:00 is 300 s"));
  CHECK(contains(refusal({.time = "banana"}), "is no time limit"));
  CHECK(contains(refusal({.after = "xyz"}), "--after xyz"));
  CHECK(contains(refusal({.more = {"--nodes=2"}}), "submit sets --nodes itself"));
  CHECK(contains(refusal({.more = {"--requeue"}}), "submit sets --requeue itself"));
  CHECK(contains(refusal({.more = {"qos=long"}}), "begins with --"));
  CHECK(contains(refusal({.more = {"--qos=a\n#SBATCH --nodes=9"}}), "begins with --"));
}

TEST_CASE("no spelling of an option of sbatch takes the place of what submit has checked") {
  struct Case {
    const char* option;
    const char* own;  ///< empty: it is another option
  };
  for (const Case& c : {Case{"--nodes 5", "--nodes"},
                        {"--nodes\t5", "--nodes"},
                        {"--\"nodes\"=5", "--nodes"},
                        {"--no\\des=5", "--nodes"},
                        {"--tim=1", "--time"},
                        {"--sign=INT", "--signal"},
                        {"--req", "--requeue"},
                        {"--gpus-per-n 3", "--gpus-per-node"},
                        {"--tasks-per-node=3", "--tasks-per-node"},
                        {"--out=log", "--output"},
                        {"--time-min=1", ""},
                        {"--gpus=3", ""},
                        {"--nodelist=a", ""},
                        {"--qos long", ""},
                        {"--dependency=singleton", ""},
                        {"--comment=\"a --nodes=5\"", ""},
                        {"--comment='a -N5'", ""},
                        {"--comment=a\\ -N5", ""},
                        {"--qos=long # --nodes=5", ""}}) {
    CAPTURE(std::string(c.option));
    const auto message = refusal({.more = {c.option}});
    if (*c.own == 0) {
      CHECK(message == "");
    } else {
      CHECK(contains(message, std::string("submit sets ") + c.own + " itself"));
    }
  }
  for (const char* two : {"--qos=long --nodes 5", "--qos=long -N5", "--qos long -n 4", "--comment='a' -t1"}) {
    CAPTURE(std::string(two));
    CHECK(contains(refusal({.more = {two}}), "one option at a time"));
  }
  for (const char* wrong : {"-N5", "-n 4", "-t1", "--", "", " ", "# --qos=long"}) {
    CAPTURE(std::string(wrong));
    CHECK(contains(refusal({.more = {wrong}}), "begins with --"));
  }
  CHECK(contains(refusal({.after = "17", .more = {"--depend=singleton"}}), "submit sets --dependency"));
}
