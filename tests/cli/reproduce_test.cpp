// jobs/reproduce.sh as a user runs it, with a few steps: models one by one, a report of all that are done, a stop in order.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/files/pending_file.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;
using test::contains;

namespace {

std::string reproduce(const std::string& options) {
  return fmt::format("cd {} && RATPLUS={} jobs/reproduce.sh {}", RATPLUS_SOURCE_DIR, RATPLUS_PROGRAM,
                     options);
}

}  // namespace

TEST_CASE("reproduce: models one by one, none twice, and a report of all that are done") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto options = fmt::format(
      "--scale tiny --prepared {} --output {} --steps 4 --set model.layers=3 "
      "--pretraining schedule.peak_lr=0.00077 --only rat",
      test::Playground::get().data.string(), run.string());
  const auto first = test::shell(reproduce(options));
  CAPTURE(first.output);
  REQUIRE(first.status == 0);
  CHECK(contains(first.output, "[2/3] rat: "));

  const auto both = test::shell(reproduce(options + " --only ratplus-joint --adaptation 50@3e-4"));
  CAPTURE(both.output);
  REQUIRE(both.status == 0);
  CHECK(test::count(both.output, "evaluated already") == 1);
  CHECK(contains(both.output, "adapted, D = 64, I = 4"));
  for (const char* file : {"report.html", "tradeoff.svg", "tradeoff.md"}) CHECK(fs::exists(run / file));
  const auto table = nlohmann::json::parse(read_whole_file(run / "tradeoff.json"));
  REQUIRE(table["models"].size() == 2);
  const auto& ratplus = table["models"][0];
  CHECK(ratplus["name"] == "ratplus-joint");
  REQUIRE(ratplus["results"].size() == 11);
  REQUIRE(ratplus["generation"].size() == 8);  // of 1 and 64 sequences, four patterns
  CHECK(table["models"][1]["generation"].size() == 2);
  CHECK(ratplus["generation"][0]["tokens_per_second"] > 0);
  CHECK(ratplus["training"]["tokens_per_second"] > 0);
  CHECK(contains(first.output, "tokens a second, median"));
  CHECK(contains(both.output, "rat: generation timed already"));
  CHECK(ratplus["results"][0]["pattern"] == "dense");
  CHECK(ratplus["results"][0]["by_position"].size() == 8);
  // Fewer than the 8 of a byte; more than a loss in bits over the longest tokens.
  CHECK(ratplus["results"][0]["bits_per_byte"] < 8);
  CHECK(ratplus["results"][0]["bits_per_byte"] > 0.5);
  for (std::size_t p = 1; p < 7; ++p)  // D = 2 .. 64
    CHECK(ratplus["results"][p]["cache_bytes"] < ratplus["results"][p - 1]["cache_bytes"]);
  CHECK(ratplus["results"][9]["pattern"] == "hybrid(64,0,4 x 2, dense x 1)");
  CHECK(ratplus["results"][10]["pattern"] == "heads(dense x 1, 64,0,4 x 1)");
  REQUIRE(ratplus["adapted"].size() == 4);
  CHECK(ratplus["adapted"][1]["pattern"] == "64,0,4");
  CHECK(ratplus["adapted"][3]["name"] == "ratplus-joint-d64-50pc-3e-4");
  CHECK(contains(both.output, "Held-out loss by length of adaptation"));
  CHECK(contains(both.output, "ratplus-joint, D = 64, I = 4    4.10k      0.0003"));
  CHECK(table["models"][1]["name"] == "rat");
  CHECK(table["models"][1]["results"].size() == 1);

  for (const char* pretrained : {"rat", "ratplus-joint"})
    CHECK(contains(read_whole_file(run / pretrained / "job.toml"), "peak_lr = 0.00077"));
  for (const char* adapted : {"ratplus-joint-d16", "ratplus-joint-d64-50pc-3e-4"})
    CHECK_FALSE(contains(read_whole_file(run / adapted / "job.toml"), "0.00077"));

  const auto metrics = read_whole_file(run / "ratplus-joint/metrics.jsonl");
  const auto again = test::shell(reproduce(options + " --only ratplus-joint"));
  CAPTURE(again.output);
  CHECK(again.status == 0);
  CHECK(test::count(again.output, "evaluated already") == 4);  // those that this command asks for
  CHECK(read_whole_file(run / "ratplus-joint/metrics.jsonl") == metrics);
}

TEST_CASE("reproduce: width and depth of all models by one command, and an output is of one of them") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto& data = test::Playground::get().data;
  const auto with = [&](const std::string& options) {
    return test::shell(reproduce(fmt::format("--scale tiny --prepared {} --output {} --steps 2 {}",
                                             data.string(), run.string(), options)));
  };
  const std::string size = "--set model.width=96 --set model.layers=4 ";
  const auto wide = with(size + "--only ratplus-joint --only ratplus-joint");
  CAPTURE(wide.output);
  REQUIRE(wide.status == 0);
  CHECK(contains(wide.output, "[3/3] report: "));  // a model named twice is one
  const auto table = read_whole_file(run / "tradeoff.md");
  CHECK(contains(table, "| model.layers | 4 |\n| model.width | 96 |\n"));
  CHECK(contains(table, "| hybrid(64,0,4 x 3, dense x 1) |"));
  CHECK(contains(table, "| heads(dense x 1, 64,0,4 x 2) |"));
  for (const char* name : {"ratplus-joint", "ratplus-joint-d16", "ratplus-joint-d64"}) {
    const auto job = read_whole_file(run / name / "job.toml");
    CHECK(contains(job, "width = 96\n"));
    CHECK(contains(job, "layers = 4\n"));
  }

  const auto refused = [&](const std::string& options, const std::string& before, const std::string& now) {
    const auto result = with(options);
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(contains(result.output, "was begun with other settings"));
    if (!before.empty()) CHECK(contains(result.output, "begun with:  " + before + "\n"));
    if (!now.empty()) CHECK(contains(result.output, "given now:   " + now + "\n"));
  };
  // Another model would stand beside those of other settings.
  refused("--set model.width=64 --set model.layers=4 --only rnn", "--set model.width=96",
          "--set model.width=64");
  refused("--only rnn", "--set model.layers=4", "");
  refused(size + "--only rnn --seed 2", "--seed 1", "--seed 2");
  refused(size + "--only rnn --steps 3", "--steps 2", "--steps 3");
  refused(size + "--only rnn --pretraining optimizer.clip=2", "", "--pretraining optimizer.clip=2");
  refused(size + "--part report --set job.precision=f32", "", "--set job.precision=f32");
  CHECK_FALSE(fs::exists(run / "rnn"));
  const auto other = scratch / "data";
  fs::copy(data, other, fs::copy_options::recursive);
  const auto of_other = [&] {
    return with(size + fmt::format("--only rnn --set log.every=1 --prepared {}", other.string()));
  };
  const auto copied = of_other();
  CAPTURE(copied.output);
  CHECK(copied.status == 0);  // the same data, and a setting of the log
  write_whole_file(other / "dataset.json", read_whole_file(other / "dataset.json") + "\n");
  CHECK(contains(of_other().output, "begun with:  --prepared with dataset.json of sha256 "));

  // What is not of the script is not removed.
  write_whole_file(run / "notes.txt", "mine");
  const auto fresh = with("--fresh --only rnn");
  CAPTURE(fresh.output);
  CHECK(fresh.status == 0);
  CHECK(fs::exists(run / "notes.txt"));
  CHECK_FALSE(fs::exists(run / "ratplus-joint"));
  fs::remove(run / "settings.txt");
  fs::remove(run / "tradeoff.json");
  fs::remove(run / "rnn/metrics.jsonl");
  CHECK(contains(with("--fresh --only rnn").output, "is not empty, and not of this script"));
  CHECK(fs::exists(run / "rnn"));
}

TEST_CASE("reproduce: a job in float32, and one in halved micro-batches") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto with = [&](const std::string& options) {
    return test::shell(reproduce(
        fmt::format("--scale tiny --prepared {} --output {} --steps 2 --only ratplus-joint-split {}",
                    test::Playground::get().data.string(), run.string(), options)));
  };
  const auto one_by_one = with("--check --set data.micro_batch=1");
  CHECK(one_by_one.status == 1);
  CHECK(contains(one_by_one.output, "micro-batches of 1 cannot be halved"));
  const auto result = with("--only ratplus-joint-f32");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  for (const char* name : {"ratplus-joint-split", "ratplus-joint-split-d16"})
    CHECK(contains(read_whole_file(run / name / "job.toml"), "micro_batch = 2\n"));
  CHECK(contains(read_whole_file(run / "ratplus-joint-f32/job.toml"), "micro_batch = 4\n"));
  CHECK(contains(read_whole_file(run / "ratplus-joint-f32/job.toml"), "precision = \"f32\"\n"));
  for (const char* name : {"ratplus-joint-split", "ratplus-joint-f32"})
    CHECK_FALSE(fs::exists(run / name / "generation.json"));
  const auto table = nlohmann::json::parse(read_whole_file(run / "tradeoff.json"));
  REQUIRE(table["pairs"].size() == 1);
  CHECK(contains(table["pairs"][0]["verdict"].get<std::string>(), "they also differ in data.micro_batch"));
}

TEST_CASE("reproduce: an evaluation that was made otherwise is not taken up") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto& data = test::Playground::get().data;
  const auto options =
      fmt::format("--scale tiny --prepared {} --output {} --steps 2 --only rnn", data.string(), run.string());
  REQUIRE(test::shell(reproduce(options)).status == 0);
  const auto file = run / "rnn/evaluation.json";
  const auto evaluation = read_whole_file(file);
  REQUIRE(test::shell(fmt::format("{} eval {} --data {} --sequences 1 --json {}", RATPLUS_PROGRAM,
                                  (run / "rnn").string(), data.string(), file.string()))
              .status == 0);
  REQUIRE(read_whole_file(file) != evaluation);
  const auto report = test::shell(reproduce(options + " --part report"));
  CAPTURE(report.output);
  CHECK(report.status == 1);
  CHECK(contains(report.output, "no model has been evaluated as these settings ask"));
  const auto again = test::shell(reproduce(options + " --only rat"));
  CAPTURE(again.output);
  CHECK(again.status == 0);
  CHECK_FALSE(contains(again.output, "evaluated already"));
  CHECK(read_whole_file(file) == evaluation);

  // Small files alone, without weights.
  fs::remove_all(run / "rnn/checkpoints");
  const auto small = test::shell(reproduce(options + " --part report"));
  CAPTURE(small.output);
  CHECK(small.status == 0);
  CHECK_FALSE(contains(small.output, "by these settings: rnn"));

  fs::remove(run / "rat/evaluation.json");
  const auto without = test::shell(reproduce(options + " --part report"));
  CHECK(without.status == 0);
  CHECK(contains(without.output,
                 "left out, since not trained and evaluated to the end by these settings: rat\n"));
}

TEST_CASE("reproduce: killed in training, the same command ends with the same numbers") {
  const test::ScratchDirectory scratch;
  const auto command = [&](const std::string& name) {
    return reproduce(
        fmt::format("--scale tiny --prepared {} --output {} --steps 60 --only rnn --set checkpoint.every=10",
                    test::Playground::get().data.string(), (scratch / name).string()));
  };
  REQUIRE(test::shell(command("whole")).status == 0);
  // Its own session, so that the script and what it has started are found.
  const auto killed = test::shell(fmt::format(
      "setsid bash -c \"{}\" & job=$!; until ls {}/killed/rnn/checkpoints/step-*0/manifest.json; do "
      "sleep 0.02; done >/dev/null 2>&1; pkill -KILL -s $job; wait $job",
      command("killed"), scratch.path().string()));
  CAPTURE(killed.output);
  CHECK(killed.status == 137);
  CHECK_FALSE(fs::exists(scratch / "killed/tradeoff.json"));
  const auto resumed = test::shell(command("killed"));
  CAPTURE(resumed.output);
  REQUIRE(resumed.status == 0);
  const auto results = [&](const std::string& name) {
    return nlohmann::json::parse(read_whole_file(scratch / name / "rnn/evaluation.json"))["results"];
  };
  CHECK(results("killed") == results("whole"));
}

TEST_CASE("reproduce: tiny trains on a CPU where there is a GPU that plan knows") {
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "nvidia-smi", "#!/bin/sh\necho NVIDIA H100 80GB HBM3\n");
  fs::permissions(scratch / "nvidia-smi", fs::perms::owner_all);
  const auto result =
      test::shell(fmt::format("export PATH={}:$PATH; ", scratch.path().string()) +
                  reproduce(fmt::format("--scale tiny --prepared {} --output {} --steps 2 --only rnn",
                                        test::Playground::get().data.string(), (scratch / "run").string())));
  CAPTURE(result.output);
  CHECK(result.status == 0);
}

TEST_CASE("reproduce: models side by side fine-tune on needles, and a table compares their patterns") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  std::string prose;
  for (char a = 'a'; a <= 'z'; ++a) {
    for (int i = 0; i < 200; ++i) prose += fmt::format("{}{}{} ", a, static_cast<char>('a' + i % 26), a);
    prose += "ends.\n";
  }
  write_whole_file(scratch / "prose.txt", prose);
  // The tokens of a needle are many where the vocabulary is small.
  const auto options = fmt::format(
      "--scale tiny --prepared {} --output {} --steps 2 --retrieval --retrieval-length 512 --prose {} --only "
      "rnn "
      "--only ratplus-joint --gpus 2",
      test::Playground::get().data.string(), run.string(), (scratch / "prose.txt").string());
  const auto result = test::shell(reproduce(options));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(contains(result.output, "rnn: on GPU 0, output in "));
  CHECK(contains(result.output, "ratplus-joint: ended with status 0 after "));
  CHECK(contains(result.output, "| whole % by task | 1-key, n = 2 | 4-keys, n = 2 | needles, n = 2 |"));
  for (const char* name :
       {"rnn-dense", "ratplus-joint-dense", "ratplus-joint-d16-w0-i4", "ratplus-joint-w32-i4"})
    CHECK(contains(result.output, fmt::format("| {} | ", name)));
  CHECK(contains(read_whole_file(run / "retrieval-512/ratplus-joint-d16-w32-i4/job.toml"), "window = 32"));
  const auto again = test::shell(reproduce(options));
  CAPTURE(again.output);
  REQUIRE(again.status == 0);
  CHECK(test::count(read_whole_file(run / "ratplus-joint.log"), "answered already") == 7);
  // As long as before: its size does not tell.
  prose[0] = 'z';
  write_whole_file(scratch / "prose.txt", prose);
  const auto changed = test::shell(reproduce(options));
  CHECK(changed.status == 1);
  CHECK(contains(changed.output, "given now:   --prose with contents of sha256 "));
}

TEST_CASE("reproduce: on a signal the run is saved, and the command that resumes is named") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto command = reproduce(fmt::format("--scale tiny --prepared {} --output {} --steps 9999 --only rnn",
                                             test::Playground::get().data.string(), run.string()));
  const auto stopped = test::shell(
      fmt::format("{0} & job=$!; until [ -s {1}/rnn/metrics.jsonl ]; do sleep 0.1; done; ( {0} --fresh ); "
                  "kill -TERM $job; wait $job",
                  command, run.string()));
  CAPTURE(stopped.output);
  CHECK(stopped.status == 130);
  CHECK(contains(stopped.output, "another command is at work there, and --fresh would remove its runs"));
  CHECK(contains(stopped.output, "stopped in phase 2/3 (rnn); continue with: RATPLUS="));
  CHECK(contains(stopped.output, " --only rnn\n"));
  CHECK(!fs::is_empty(run / "rnn/checkpoints"));
}

TEST_CASE("reproduce: on a signal all models side by side are saved, and the same command resumes them") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto options =
      fmt::format("--scale tiny --prepared {} --output {} --only rnn --only rat --gpus 2 --steps ",
                  test::Playground::get().data.string(), run.string());
  const auto stopped = test::shell(
      fmt::format("export CUDA_VISIBLE_DEVICES=; {0} & job=$!; until [ -s {1}/rnn/metrics.jsonl ] && [ -s "
                  "{1}/rat/metrics.jsonl ]; do sleep 0.1; done; kill -TERM $job; wait $job",
                  reproduce(options + "9999"), run.string()));
  CAPTURE(stopped.output);
  CHECK(stopped.status == 130);
  CHECK(test::count(stopped.output, "stopping: all models finish their step and save first") == 1);
  CHECK(contains(stopped.output, "stopped in phase 2/4 (rnn rat); continue with: RATPLUS="));
  CHECK(contains(stopped.output, " --gpus 2 --steps 9999\n"));
  for (const char* model : {"rnn", "rat"}) {
    CAPTURE(model);
    CHECK(contains(stopped.output, fmt::format("{}: ended with status 130 after ", model)));
    REQUIRE(fs::exists(run / model / "checkpoints"));
    CHECK(!fs::is_empty(run / model / "checkpoints"));
  }
  const auto resumed = test::shell(fmt::format(
      "export CUDA_VISIBLE_DEVICES=; {0} & job=$!; until grep -q resumed.at.step {1}/rnn.log && grep "
      "-q resumed.at.step {1}/rat.log; do sleep 0.1; done; kill -TERM $job; wait $job",
      reproduce(options + "9999"), run.string()));
  CAPTURE(resumed.output);
  CHECK(resumed.status == 130);
}

TEST_CASE("reproduce: a signal while models side by side are being started ends all of them") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto log = scratch / "log";
  const auto stopped = test::shell(
      fmt::format("export CUDA_VISIBLE_DEVICES=; : >{1}; {0} >{1} 2>&1 & job=$!; until grep -q rnn:.on.GPU "
                  "{1}; do :; done; "
                  "kill -TERM $job; wait $job",
                  reproduce(fmt::format(
                      "--scale tiny --prepared {} --output {} --only rnn --only rat --gpus 2 --steps 9999",
                      test::Playground::get().data.string(), run.string())),
                  log.string()));
  const auto output = read_whole_file(log);
  CAPTURE(output);
  CHECK(stopped.status == 130);
  CHECK(contains(output, "rnn: ended with status 1"));  // 143: before it could save; 130
  CHECK_FALSE(contains(output, "ended with status 0"));
  CHECK(contains(output, "continue with: "));
}

TEST_CASE("reproduce: mistakes are named before anything is made") {
  const auto refused = [](const std::string& options) {
    const auto result = test::shell(reproduce(options));
    CHECK(result.status == 1);
    return result.output;
  };
  CHECK(contains(refused("--scale huge --data /tmp"), "--scale is tiny, small or medium, not"));
  CHECK(contains(refused("--scale tiny"), "--data DIR, or a dataset with --prepared DIR"));
  CHECK(contains(refused("--scale tiny --data /no/such"), "--data /no/such: is no directory"));
  CHECK(contains(refused("--scale tiny --prepared /tmp"), "--prepared /tmp: holds no dataset.json"));
  CHECK(contains(refused("--scale tiny --data /tmp --retrieval --prose /no/such"),
                 "--prose /no/such: does not exist"));
  // As the chain of jobs asks before it queues anything.
  CHECK(contains(refused("--scale tiny --part models --check"), "give text with --data DIR"));
  CHECK(contains(refused("--scale tiny --data /tmp --set model.norm_eps=x --part models --check"),
                 "model.norm_eps must be a number"));
  CHECK(contains(refused("--scale tiny --data /tmp --ranks 2 --gpus 2"), "exclude each other"));
  for (const char* adaptation : {"ten", "0", "101", "10@", "10@...", "10@0", "10.0", "5%"})
    CHECK(contains(refused(fmt::format("--scale tiny --data /tmp --adaptation {}", adaptation)),
                   fmt::format("--adaptation {}: give per cent", adaptation)));
  for (const char* number : {"3", "08", "-1", "one"})
    CHECK(contains(refused(fmt::format("--scale tiny --data /tmp --part models --nth {}", number)),
                   fmt::format("--nth {}: give a number from 0 to 2", number)));
  CHECK(contains(refused("--scale tiny --data /tmp --part all"), "--part is data, models or report"));
  CHECK(contains(refused("--scale tiny --data /tmp --tokens many"), "--tokens many: give a number"));
  CHECK(
      contains(refused("--scale tiny --data /tmp --set schedule.tokens=1e6"), "--tokens N sets the length"));
  CHECK(contains(refused("--scale tiny --data /tmp --set schedule.peak_lr=1e-4"),
                 "--pretraining schedule.peak_lr=1e-4 is of the first"));
  CHECK(contains(refused("--scale tiny --data /tmp --pretraining schedule.steps=9"),
                 "--tokens N sets the length"));
  for (const char* option : {"--set", "--pretraining"})
    CHECK(contains(refused(fmt::format("--scale tiny --data /tmp {} schedule.epochs=1", option)),
                   "--tokens N sets the length"));
  CHECK(contains(refused("--scale tiny --data /tmp --pretraining model.width=64"),
                 "--set model.width=64 is of all jobs"));
  CHECK(contains(refused("--scale tiny --data /tmp --pretraining schedule.peak_lr"), "give KEY=VALUE"));
  for (const char* setting :
       {"width=64", "model.width", "model.width=", R"("model.width= 64")", R"("model.width =64")"})
    CHECK(contains(refused(fmt::format("--scale tiny --data /tmp --set {}", setting)),
                   "give SECTION.KEY=VALUE"));
  for (const char* setting : {"model.width=0x40", "model.head_dim=0", "model.layers=08", "data.batch=many"})
    CHECK(contains(refused(fmt::format("--scale tiny --data /tmp --set {}", setting)),
                   "give a number from 1 on"));
  CHECK(contains(refused("--scale tiny --data /tmp --set model.width=100"),
                 "is no multiple of model.head_dim 32"));
  // The script's own, which would be lost or change what a model's name says.
  CHECK(contains(refused("--scale tiny --data /tmp --set job.seed=2"), "--seed N sets"));
  CHECK(contains(refused("--scale tiny --data /tmp --set job.directory=x"), "--output DIR sets"));
  CHECK(contains(refused("--scale tiny --data /tmp --set data.directory=x"), "--data or --prepared"));
  CHECK(contains(refused("--scale tiny --data /tmp --set job.joint_pattern=16,0,0"),
                 "--pretraining job.joint"));
  for (const char* key : {"model.mixer", "model.vocab_size", "job.recipe", "job.kind"})
    CHECK(contains(refused(fmt::format("--scale tiny --data /tmp --set {}=attention", key)),
                   "each model's own"));
  for (const char* option : {"--output", "--data", "--only", "--set", "--plan"})
    CHECK(contains(refused(fmt::format("--scale tiny --prepared /tmp {} \"\"", option)), "needs a value"));
  CHECK(contains(refused("--scale tiny --prepared /tmp --only bert"), "choose of ratplus-joint"));
}

TEST_CASE("reproduce: numbers have a point in any language, and a link to the script is the script") {
  const test::ScratchDirectory scratch;
  const auto languages = (scratch / "languages").string();
  fs::create_directory(languages);
  const auto made = test::shell(fmt::format(
      "localedef -i de_DE -f UTF-8 --no-archive {0}/de_DE.UTF-8; ls {0}/de_DE.UTF-8/LC_NUMERIC", languages));
  if (made.status != 0) {
    MESSAGE("no localedef here: " << made.output);
  } else {
    const auto planned = [&](const std::string& language) {
      return test::shell(language +
                         reproduce("--scale small --plan h100 --only ratplus-joint --adaptation 0.5"))
          .output;
    };
    const auto in_german = planned(fmt::format("export LOCPATH={} LC_ALL=de_DE.UTF-8; ", languages));
    CHECK(contains(in_german, "in all"));
    CHECK(in_german == planned(""));
  }
  fs::create_symlink(fs::path(RATPLUS_SOURCE_DIR) / "jobs/reproduce.sh", scratch / "link");
  const auto listed = test::shell((scratch / "link").string() + " --scale tiny --list");
  CHECK(listed.status == 0);
  CHECK(contains(listed.output, "attention-dense\n"));
}

TEST_CASE("reproduce: its plan is a time for each model, without data or a GPU") {
  const auto planned = test::shell(reproduce("--scale small --plan h100"));
  CAPTURE(planned.output);
  CHECK(planned.status == 0);
  for (const char* part : {"1 x h100", "ratplus-joint", "attention-dense", "in all"})
    CHECK(contains(planned.output, part));
  const auto minutes = [&](const std::string& options) {
    const auto of =
        test::shell(reproduce("--scale small --plan h100 --only rnn --only ratplus-joint" + options)).output;
    const auto at = of.find("in all");
    REQUIRE(at != std::string::npos);
    return std::stod(of.substr(at + 6));
  };
  const auto of_all =
      test::shell(reproduce("--scale medium --plan h200 --pretraining job.joint_pattern=16,0,0 --pretraining "
                            "log.validation_patterns='[{dilation=64,window=0,sinks=4}]'"));
  CAPTURE(of_all.output);
  CHECK(of_all.status == 0);
  CHECK(contains(of_all.output, "in all"));
  CHECK(minutes(" --tokens 385e6") / minutes("") == doctest::Approx(10).epsilon(0.1));
}
