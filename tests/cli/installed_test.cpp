// The installed tree, moved to another place: program, job files, scripts, pages and completions.
#include <doctest/doctest.h>

#include "base/files/pending_file.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;
using test::contains;

namespace {

/// Installed once, and moved away from where it was installed.
class Installed {
 public:
  static const Installed& get() {
    static const Installed installed;
    return installed;
  }

  const fs::path& prefix() const { return prefix_; }

  /// A command in an empty directory, with the installed program first in PATH.
  test::Result run(const std::string& command) const {
    return test::shell(fmt::format("cd {} && PATH={}:$PATH && {}", (scratch_ / "elsewhere").string(),
                                   (prefix_ / "bin").string(), command));
  }

 private:
  Installed() {
    const auto first = scratch_ / "first";
    const auto result = test::shell(
        fmt::format("{} --install {} --prefix {}", CMAKE_PROGRAM, BUILD_DIRECTORY, first.string()));
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    fs::rename(first, prefix_);
    fs::create_directory(scratch_ / "elsewhere");
  }

  test::ScratchDirectory scratch_;
  fs::path prefix_ = scratch_ / "moved";
};

}  // namespace

TEST_CASE("installed: the program runs and plans a job file that was installed with it") {
  const auto& installed = Installed::get();
  const auto version = installed.run("ratplus --version");
  CAPTURE(version.output);
  CHECK(version.status == 0);
  CHECK(contains(version.output, "revision"));
  const auto plan = installed.run("ratplus plan configs/pretrain/1b.toml --nodes 1 --gpu h100");
  CAPTURE(plan.output);
  CHECK(plan.status == 0);
  CHECK(installed.run("ratplus plan configs/pretrain/17b.toml").status == 1);
}

TEST_CASE("installed: a job is submitted, and trained, from a job file that was installed") {
  const auto& installed = Installed::get();
  const auto& playground = test::Playground::get();
  const auto settings = fmt::format(
      "--set data.directory={} model.vocab_size=400 model.layers=1 model.width=32 model.head_dim=16 "
      "data.sequence_length=32 data.batch=2 data.micro_batch=1 schedule.steps=2 log.validation_sequences=2",
      playground.data.string());
  const auto submitted = installed.run(fmt::format(
      "ratplus submit configs/quickstart/pretrain.toml --nodes 1 --ranks-per-node 2 --dry-run {}", settings));
  CAPTURE(submitted.output);
  CHECK(submitted.status == 0);
  CHECK(contains(submitted.output,
                 fmt::format("ratplus=\x27{}\x27\n", (installed.prefix() / "bin/ratplus").string())));
  const auto trained = installed.run("ratplus train configs/quickstart/pretrain.toml " + settings);
  CAPTURE(trained.output);
  CHECK(trained.status == 0);
  CHECK(contains(trained.output, "step 2/2"));
}

TEST_CASE("installed: batch scripts and launchers find the program and each other from any directory") {
  const auto& installed = Installed::get();
  const auto jobs = (installed.prefix() / "share/ratplus/jobs").string();
  const auto& playground = test::Playground::get();
  const auto settings =
      fmt::format("--set job.directory=runs/a data.directory={} schedule.steps=2", playground.data.string());
  // As Slurm starts a batch script: from a copy elsewhere, with an srun that starts one rank.
  const auto bin = installed.prefix() / "made";
  fs::create_directories(bin);
  write_whole_file(bin / "srun", "#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nexec \"$@\"\n");
  fs::permissions(bin / "srun", fs::perms::owner_all);
  for (const std::string script : {"pretrain", "adapt"}) {
    CAPTURE(script);
    fs::copy_file(jobs + "/slurm/" + script + ".sbatch", bin / "slurm_script",
                  fs::copy_options::overwrite_existing);
    const auto batch = installed.run(fmt::format(
        "PATH={0}:$PATH SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NODELIST=here bash {0}/slurm_script {1} {2}",
        bin.string(), playground.job.string(), settings));
    CAPTURE(batch.output);
    CHECK(batch.status == 0);
    CHECK(contains(batch.output, script == "pretrain" ? "step 2/2" : "finished already"));
  }
  const auto by_mpirun = installed.run(fmt::format("{}/mpirun.sh -n 2 -- train {} {} job.directory=runs/b",
                                                   jobs, playground.job.string(), settings));
  CAPTURE(by_mpirun.output);
  CHECK(by_mpirun.status == 0);
  CHECK(contains(by_mpirun.output, "step 2/2"));
  write_whole_file(bin / "sbatch", "#!/bin/sh\necho \"$RATPLUS $@\" >> asked; echo 7\n");
  fs::permissions(bin / "sbatch", fs::perms::owner_all);
  const auto chain =
      installed.run(fmt::format("PATH={}:$PATH {}/slurm/chain.sh configs/quickstart/pretrain.toml "
                                "configs/quickstart/adapt-d16.toml && cat asked",
                                bin.string(), jobs));
  CAPTURE(chain.output);
  CHECK(chain.status == 0);
  for (const char* script : {"pretrain", "adapt_sweep", "eval"})
    CHECK(contains(chain.output, fmt::format("/slurm/{}.sbatch ", script)));
  CHECK(test::count(chain.output, (installed.prefix() / "bin/ratplus").string() + " --parsable") == 3);
  CHECK(installed.run(jobs + "/reproduce.sh --scale small --plan h100").status == 0);
  const auto reproduction = installed.run(fmt::format(
      "PATH={}:$PATH {}/slurm/reproduce_chain.sh --time=20 -- --scale small --prepared {} && tail -n 3 asked",
      bin.string(), jobs, test::Playground::get().data.string()));
  CAPTURE(reproduction.output);
  CHECK(reproduction.status == 0);
  CHECK(contains(reproduction.output, "3 models: job "));
  for (const char* wrong : {"--help", "--list", "--part data"}) {
    const auto refused = installed.run(fmt::format(
        "PATH={}:$PATH {}/slurm/reproduce_chain.sh -- --scale small {}", bin.string(), jobs, wrong));
    CHECK(refused.status == 1);
    CHECK(contains(refused.output, "is for the script by itself, not for a chain of jobs"));
  }
  for (const char* part : {"reproduce.sbatch --part data", "--array=0-2 ", "reproduce.sbatch --part models",
                           "reproduce.sbatch --part report"})
    CHECK(contains(reproduction.output, part));
  for (const char* script :
       {"mpirun.sh", "reproduce.sh", "container.sh", "slurm/chain.sh", "slurm/ruler_chain.sh",
        "slurm/reproduce_chain.sh", "evaluate/commonsense.sh", "evaluate/ruler.sh"})
    CHECK(installed.run(fmt::format("{}/{} --help", jobs, script)).status == 0);
}

TEST_CASE("installed: ruler.sh, its batch job and its chain, from any directory") {
  const auto& installed = Installed::get();
  const auto jobs = (installed.prefix() / "share/ratplus/jobs").string();
  const auto& playground = test::Playground::get();
  const auto bin = installed.prefix() / "of_slurm";
  fs::create_directories(bin);
  std::string prose, words;
  for (int i = 0; i < 2000; ++i) prose += fmt::format("ba ke lo {} mi.{}", i % 7, i % 5 == 0 ? "\n" : " ");
  for (char a = 'a'; a <= 'z'; ++a) {
    for (char b = 'a'; b <= 'z'; ++b) words += fmt::format("{}{}\n", a, b);
  }
  write_whole_file(bin / "prose.txt", prose);
  write_whole_file(bin / "words.txt", words);
  const auto pretrained = installed.run(fmt::format(
      "cp {0}/*.txt . && ratplus train {1} --set job.directory=runs/pretrained data.directory={2} "
      "schedule.steps=1 data.sequence_length=192",
      bin.string(), playground.job.string(), playground.data.string()));
  CAPTURE(pretrained.output);
  REQUIRE(pretrained.status == 0);
  const std::string options =
      "runs/pretrained --prose prose.txt --length 192 --train 16 --samples 4 --answer-tokens 12 "
      "--task one=essay,words,numbers,1,1,1 --needles --wording=brief --needles --digits=2 "
      "--needles --key-words=1 --needles --nouns=words.txt --set schedule.steps=2 --set data.batch=8";

  // As Slurm starts its batch script, from a copy elsewhere; the other parts by hand.
  fs::copy_file(jobs + "/slurm/ruler.sbatch", bin / "slurm_script");
  const auto data = installed.run(
      fmt::format("SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_JOB_NODELIST=here bash {}/slurm_script --part data {}",
                  bin.string(), options));
  CAPTURE(data.output);
  CHECK(data.status == 0);
  const auto whole = installed.run(fmt::format("{}/evaluate/ruler.sh {}", jobs, options));
  CAPTURE(whole.output);
  CHECK(whole.status == 0);
  CHECK(contains(whole.output, "validation.jsonl: made before"));
  CHECK(contains(whole.output, "| reference % by task | one, n = 4 |\n|---|---:|\n| pretrained |"));
  CHECK(contains(whole.output, "scores: runs/ruler/scores.md"));

  write_whole_file(bin / "sbatch", "#!/bin/sh\necho \"$RATPLUS $@\" >> asked_ruler; echo 7\n");
  fs::permissions(bin / "sbatch", fs::perms::owner_all);
  const auto chain =
      installed.run(fmt::format("PATH={}:$PATH {}/slurm/ruler_chain.sh --time=20 -- {} && cat asked_ruler",
                                bin.string(), jobs, options));
  CAPTURE(chain.output);
  CHECK(chain.status == 0);
  CHECK(test::count(chain.output, (installed.prefix() / "bin/ratplus").string() + " --parsable") == 3);
  for (const char* part : {"data", "tune", "scores"})
    CHECK(contains(chain.output, fmt::format("/slurm/ruler.sbatch --part {} runs/pretrained", part)));
}

TEST_CASE("installed: pages, completions and the module file are where they are looked for") {
  const auto share = Installed::get().prefix() / "share";
  for (const char* file :
       {"bash-completion/completions/ratplus", "zsh/vendor-completions/_ratplus",
        "fish/vendor_completions.d/ratplus.fish", "ratplus/ratplus.def", "doc/ratplus/docs/installation.md"})
    CHECK(fs::file_size(share / file) > 500);
  CHECK(
      (fs::exists(share / "man/man1/ratplus-train.1.gz") || fs::exists(share / "man/man1/ratplus-train.1")));
  CHECK(test::shell("bash -n " + (share / "bash-completion/completions/ratplus").string()).status == 0);
  // No path of the build or of the source is in the tree, but for the build's own record in the program.
  const auto found = test::shell(fmt::format("grep -rlI {} {}; grep -rlI {} {}", RATPLUS_SOURCE_DIR,
                                             share.string(), BUILD_DIRECTORY, share.string()));
  CHECK(found.output.empty());
  const auto module = test::shell(fmt::format("cat {}/modulefiles/ratplus/*", share.string()));
  CHECK(module.output.starts_with("#%Module"));
  CHECK_FALSE(contains(module.output, "@"));
}
