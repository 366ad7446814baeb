// jobs/evaluate/commonsense.sh and longbench.sh beside small programs in the places of lm_eval and eval.py: results, signals,
// and outputs that are lost or of another model.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/cli/program.h"

using namespace ratplus;
using test::contains;
namespace fs = std::filesystem;

namespace {

/// A small model that has learnt a little.
class Trained {
 public:
  static std::string get() {
    static const Trained trained;
    return (trained.scratch_ / "run").string();
  }

 private:
  Trained() {
    const auto& playground = test::Playground::get();
    const auto result = test::ratplus(
        fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=10 "
                    "checkpoint.every=0 job.threads=1",
                    playground.job.string(), (scratch_ / "run").string(), playground.data.string()));
    if (result.status != 0) fail("{}", result.output);
  }

  test::ScratchDirectory scratch_;
};

/// A program that runs this script.
std::string made_program(const fs::path& file, const std::string& script) {
  write_whole_file(file, "#!/usr/bin/env bash\nset -euo pipefail\n" + script);
  fs::permissions(file, fs::perms::owner_all);
  return file.string();
}

std::string job_script(const std::string& name) {
  return fmt::format("RATPLUS={} {}/jobs/evaluate/{}.sh {}", RATPLUS_PROGRAM, RATPLUS_SOURCE_DIR, name,
                     Trained::get());
}

/// Reads --model_args, asks the server for a log-probability, prints the tables of four tasks, one with acc_norm alone and
/// one with neither, and of a group.
constexpr const char* harness = R"(
while (($# > 0)); do
  case $1 in
    --model_args) args=$2 ;;
    --output_path) output=$2 ;;
  esac
  shift
done
url=$(sed 's/.*"base_url": "//; s/".*//' <<<"$args")
model=$(sed 's/.*"model": "//; s/".*//' <<<"$args")
curl -fsS "$url" -H 'Content-Type: application/json' \
  -d "{\"model\": \"$model\", \"prompt\": [[5, 6]], \"max_tokens\": 1, \"echo\": true, \"logprobs\": 1, \"temperature\": 0, \"seed\": 1234}" |
  grep -q token_logprobs
if [[ -n ${output:-} && -z ${LOSE:-} ]]; then
  mkdir -p "$output"
  echo '{"results": {}}' >"$output/results_1.json"
fi
cat <<'END'
|  Tasks  |Version|Filter|n-shot|Metric  |   |Value |   |Stderr|
|---------|------:|------|-----:|--------|---|-----:|---|-----:|
|one      |      1|none  |     0|acc     |^  |0.2500|+- |0.0100|
|         |       |none  |     0|acc_norm|^  |0.5000|+- |0.0100|
|two      |      1|none  |     0|acc     |^  |0.7500|+- |0.0100|
|three    |      1|none  |     0|acc_norm|^  |0.9000|+- |0.0100|
|four     |      1|none  |     0|exact   |^  |0.9900|+- |0.0100|
|all      |      1|none  |     0|acc     |^  |0.1000|+- |0.0100|
|         |       |none  |     0|acc_norm|^  |0.1000|+- |0.0100|
| - five  |      1|none  |     0|acc     |^  |0.5000|+- |0.0100|
| - mixed |      1|none  |      |acc     |^  |0.1000|+- |0.0100|

| Groups  |Version|Filter|n-shot|Metric  |   |Value |   |Stderr|
|---------|------:|------|-----:|--------|---|-----:|---|-----:|
|all      |      1|none  |     0|acc     |^  |0.1000|+- |0.0100|
|         |       |none  |     0|acc_norm|^  |0.1000|+- |0.0100|
END
)";

}  // namespace

TEST_CASE("commonsense.sh evaluates each pattern, prints the means, and refuses lost results") {
  const test::ScratchDirectory scratch;
  const auto lm_eval = made_program(scratch / "lm_eval", harness);
  const auto evaluate = fmt::format("LM_EVAL={} {} --threads 1", lm_eval, job_script("commonsense"));
  const auto both = test::shell(evaluate + " --pattern dense --pattern 4,0,2");
  CAPTURE(both.output);
  REQUIRE(both.status == 0);
  CHECK(contains(both.output, "ratplus@dense             50.00 of 3,  66.25 of 4"));
  CHECK(contains(both.output, "ratplus@4,0,2             50.00 of 3,  66.25 of 4"));

  const auto output = (scratch / "scores").string();
  CHECK(test::shell(evaluate + " --output " + output).status == 0);
  const auto lost = test::shell("LOSE=1 " + evaluate + " --output " + (scratch / "lost").string());
  CHECK(lost.status == 1);
  CHECK(contains(lost.output, "wrote no results for ratplus@"));
}

TEST_CASE("commonsense.sh: a signal ends harness and server, with one message") {
  const test::ScratchDirectory scratch;
  const auto lm_eval = made_program(
      scratch / "lm_eval", fmt::format("echo $$ >{}/pid\nexec sleep 300\n", scratch.path().string()));
  const auto stopped =
      test::shell(fmt::format("LM_EVAL={0} {1} --threads 1 & script=$!; until [ -s {2}/pid ]; do sleep 0.1; "
                              "done; kill -TERM $script; "
                              "wait $script; echo status $?; kill -0 $(cat {2}/pid) 2>/dev/null || echo gone",
                              lm_eval, "env " + job_script("commonsense"), scratch.path().string()));
  CAPTURE(stopped.output);
  CHECK(contains(stopped.output, "stopped at ratplus@"));
  CHECK(contains(stopped.output, "complete: 0 of 1"));
  CHECK(contains(stopped.output, "status 1\ngone\n"));
}

TEST_CASE(
    "longbench.sh keeps its answers, scores them again, and refuses those of other patterns, prompts, data "
    "and weights") {
  const test::ScratchDirectory scratch;
  const auto longbench = scratch / "LongBench", data = scratch / "data", output = scratch / "out";
  fs::create_directories(longbench / "config");
  fs::create_directories(data);
  const auto prompts = [&](const std::string& qasper, const std::string& trec) {
    write_whole_file(longbench / "config/dataset2prompt.json",
                     fmt::format(R"({{"qasper": "{}", "trec": "{}"}})", qasper, trec));
  };
  prompts("{context} {input}:", "{input}");
  for (const char* file : {"eval.py", "metrics.py"}) write_whole_file(longbench / file, "");
  std::ofstream lines(data / "qasper.jsonl");
  for (int i = 0; i < 3; ++i) {
    lines << fmt::format(
        R"({{"context": "word", "input": "a{}", "answers": ["b"], "all_classes": null, "length": 1, "_id": "{}"}})"
        "\n",
        i, i);
  }
  lines.close();
  fs::copy_file(data / "qasper.jsonl", data / "trec.jsonl");
  // In the place of `python3 eval.py --model NAME`: the number of answers as the score, and what else may be there.
  const auto python = made_program(scratch / "python", R"sh(
if [[ $1 == -c ]]; then exit 0; fi
if [[ -n ${FULL:-} ]]; then echo 'No space left on device' >&2; exit 1; fi
printf '{\n"qasper": %s,\n"trec": 50.0,\n"lcc": 80.0,\n"about": 7\n}\n' "$(grep -c pred pred/ratplus/qasper.jsonl)" \
  >pred/ratplus/result.json
)sh");
  const auto run = scratch / "run";  // a copy, whose weights change below
  fs::copy(Trained::get(), run, fs::copy_options::recursive);
  const auto evaluate = fmt::format(
      "PYTHON={} RATPLUS={} {}/jobs/evaluate/longbench.sh {} --longbench {} --data {} --output {} --tasks "
      "qasper "
      "--threads 1 --length 600 --longer",
      python, RATPLUS_PROGRAM, RATPLUS_SOURCE_DIR, run.string(), longbench.string(), data.string(),
      output.string());
  const auto full = test::shell("FULL=1 " + evaluate);
  CAPTURE(full.output);
  CHECK(full.status == 1);
  CHECK(contains(full.output, "eval.py failed (see above); the answers are in"));
  const auto answers = read_whole_file(output / "pred/ratplus/qasper.jsonl");
  const auto again = test::shell(evaluate);
  CAPTURE(again.output);
  REQUIRE(again.status == 0);
  CHECK(contains(again.output, "qasper: kept"));
  CHECK(contains(again.output, "  qasper               3.00"));
  CHECK(read_whole_file(output / "pred/ratplus/qasper.jsonl") == answers);
  CHECK(contains(again.output, "  mean of 1            3.00   of the papers' 11"));
  CHECK(!contains(again.output, "lcc"));
  const auto both = test::shell(evaluate + " --tasks qasper,trec");
  CAPTURE(both.output);
  CHECK(contains(both.output, "  trec                50.00\n  mean of 1            3.00 "));
  const auto other = test::shell(evaluate + " --pattern 4,0,2");
  CHECK(other.status == 1);
  CHECK(contains(other.output, "give another --name or --output, or remove it"));

  // Other prompts, data or weights at the same paths; the prompt of another task changes nothing.
  prompts("{context} {input}:", "Type: {input}");
  CHECK(test::shell(evaluate).status == 0);
  const auto differs = [&](const std::string& what) {
    const auto refused = test::shell(evaluate);
    CAPTURE(refused.output);
    CHECK(refused.status == 1);
    CHECK(contains(refused.output, fmt::format("qasper.jsonl has answers of other contents ({}); ", what)));
    CHECK(read_whole_file(output / "pred/ratplus/qasper.jsonl") == answers);
  };
  prompts("{input} {context}:", "Type: {input}");
  differs("prompt");
  prompts("{context} {input}:", "{input}");
  const auto asked = read_whole_file(data / "qasper.jsonl");
  write_whole_file(data / "qasper.jsonl", asked.substr(0, asked.find('\n') + 1));
  differs("data");
  write_whole_file(data / "qasper.jsonl", asked);
  const auto checkpoint = fs::directory_iterator(run / "checkpoints")->path();
  write_whole_file(checkpoint / "manifest.json", read_whole_file(checkpoint / "manifest.json") + "\n");
  differs("weights");
}

TEST_CASE("ruler.sh: --fresh removes neither what it reads nor what it has not made") {
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "prose.txt", "Some words.");
  const auto fresh = [&](const std::string& options) {
    const auto result = test::shell(fmt::format("{} --prose {} --fresh {}", job_script("ruler"),
                                                (scratch / "prose.txt").string(), options));
    CHECK(result.status == 1);
    return result.output;
  };
  CHECK(contains(fresh("--output \"\""), "--output needs a value"));
  // The run to tune is Trained's, in a directory that is named as the output.
  CHECK(contains(fresh("--output " + fs::path(Trained::get()).parent_path().string()),
                 "--fresh would remove " + Trained::get() + ", which this command reads"));
  CHECK(fs::exists(fs::path(Trained::get()) / "metrics.jsonl"));
  fs::create_directories(scratch / "mine/data");
  write_whole_file(scratch / "mine/data/notes.txt", "mine");
  CHECK(contains(fresh("--output " + (scratch / "mine").string()), "mine/data is not of this script"));
  CHECK(fs::exists(scratch / "mine/data/notes.txt"));
}
