// RULER's chain as a user runs it: data, fine-tuning, answers, scores; stopped anywhere, the same command resumes.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;
using test::contains;

namespace {

/// A pretrained run of two steps, and prose of its own.
struct Pretrained {
  test::ScratchDirectory scratch;

  Pretrained() {
    const auto& playground = test::Playground::get();
    const auto result = test::ratplus(fmt::format(
        "train {} --set data.directory={} job.directory={} schedule.steps=2 data.sequence_length=192",
        playground.job.string(), playground.data.string(), run()));
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    std::string words, prose;
    for (char a = 'a'; a <= 'z'; ++a) {
      for (char b = 'a'; b <= 'z'; ++b) words += fmt::format("{}{}\n", a, b);
    }
    for (int i = 0; i < 2000; ++i) prose += fmt::format("ba ke lo {} mi.{}", i % 7, i % 5 == 0 ? "\n" : " ");
    write_whole_file(scratch / "prose.txt", prose);
    write_whole_file(scratch / "words.txt", words);
  }
  std::string run() const { return (scratch / "base").string(); }
  std::string path(const char* name) const { return (scratch / name).string(); }

  std::string chain(const std::string& options) const {
    return fmt::format(
        "cd {} && RATPLUS={} jobs/evaluate/ruler.sh {} --prose {} --output {} --length 192 --train 16 "
        "--samples 4 "
        "--answer-tokens 12 --task one=essay,words,numbers,1,1,1 --task all=needle,words,numbers,1,1,1 "
        "--needles --wording=brief "
        "--needles --digits=2 --needles --key-words=1 --needles --nouns={} --set schedule.steps=3 "
        "--set data.batch=8 {}",
        RATPLUS_SOURCE_DIR, RATPLUS_PROGRAM, run(), path("prose.txt"), path("ruler"), path("words.txt"),
        options);
  }
};

}  // namespace

TEST_CASE("ruler.sh: from data to a table by pattern, and nothing twice") {
  const Pretrained base;
  const auto options = base.chain("--pattern dense --pattern 8,0,2 --by distance:40,100");
  const auto first = test::shell(options);
  CAPTURE(first.output);
  REQUIRE(first.status == 0);
  CHECK(contains(first.output, "[4/4] scores: "));
  CHECK(contains(first.output,
                 "| reference % by task | one, n = 4 | all, n = 4 |\n|---|---:|---:|\n| base-dense |"));
  CHECK(contains(first.output, "| whole % by distance | "));
  const auto scores = parse_json(read_whole_file(base.scratch / "ruler/scores.json"));
  REQUIRE(scores["answers"].size() == 2);
  REQUIRE(scores["answers"][0]["tables"].size() == 2);
  CHECK(scores["answers"][0]["tables"][0]["groups"].size() == 2);
  CHECK(scores["answers"][0]["tables"][0]["groups"][0]["answers"] == 4);

  const auto metrics = read_whole_file(base.scratch / "ruler/base-dense/metrics.jsonl");
  const auto again = test::shell(options);
  CAPTURE(again.output);
  REQUIRE(again.status == 0);
  CHECK(contains(again.output, "made before"));
  CHECK(contains(again.output, "generated before"));
  CHECK(read_whole_file(base.scratch / "ruler/base-dense/metrics.jsonl") == metrics);

  const auto other = test::shell(base.chain("--pattern dense --samples 5"));
  CHECK(other.status == 1);
  CHECK(contains(other.output, "has data made with other options"));
}

TEST_CASE("ruler.sh: a table is of one set of samples and questions") {
  const Pretrained base;
  const auto run = [&](const std::string& options, int status) {
    const auto result = test::shell(base.chain(options));
    CAPTURE(result.output);
    CHECK(result.status == status);
    return result.output;
  };
  run("--pattern dense --pattern 8,0,2", 0);
  const auto ruler = base.scratch / "ruler";
  const auto answers = read_whole_file(ruler / "base-dense/answers.jsonl");
  CHECK(contains(run("--pattern dense --fresh", 1),
                 "--fresh would make other samples and questions than those of base-d8-w0-i2 in "));
  CHECK(read_whole_file(ruler / "base-dense/answers.jsonl") == answers);

  // Questions that differ are answered again, before a table takes them.
  auto questions = read_whole_file(ruler / "data/validation.jsonl");
  questions.resize(questions.find('\n') + 1);
  write_whole_file(ruler / "data/validation.jsonl", questions);
  CHECK(contains(run("--pattern dense --part scores", 1),
                 "base-dense: fine-tuned on, or asked, other samples"));
  CHECK(!contains(run("--pattern dense", 0), "answers.jsonl: generated before"));
  CHECK(
      contains(run("--pattern dense --pattern 8,0,2 --part scores", 1), "base-d8-w0-i2: fine-tuned on, or"));
  CHECK(contains(run("--pattern dense", 0), "answers.jsonl: generated before"));

  // Text that differs at the same path makes other data, on which no model goes on.
  auto prose = read_whole_file(base.scratch / "prose.txt");
  std::ranges::replace(prose, 'k', 'l');
  write_whole_file(base.scratch / "prose.txt", prose);
  CHECK(contains(run("--pattern dense", 1), "were made from have changed since"));
  fs::remove_all(ruler / "data");
  CHECK(contains(run("--pattern dense", 1), "base-dense was fine-tuned on other samples than those of "));
  CHECK(contains(run("--pattern dense --pattern 8,0,2 --part scores", 1),
                 "base-dense, base-d8-w0-i2: fine-tuned on"));
  run("--pattern dense --pattern 8,0,2 --fresh", 0);
}

TEST_CASE("ruler.sh: parts by themselves, as batch jobs run them, and a stop that resumes") {
  const Pretrained base;
  CHECK(test::shell(base.chain("--pattern dense --pattern 8,0,2 --list")).output ==
        "base-dense\nbase-d8-w0-i2\n");
  const auto early = test::shell(base.chain("--part tune"));
  CHECK(early.status == 1);
  CHECK(contains(early.output, "holds no samples; make them first (--part data)"));
  REQUIRE(test::shell(base.chain("--part data")).status == 0);
  const auto stopped = test::shell(base.chain("--part tune --set schedule.steps=99999") +
                                   fmt::format(" & job=$!; until [ -s {}/ruler/base/metrics.jsonl ]; do "
                                               "sleep 0.1; done; kill -TERM $job; wait $job",
                                               base.scratch.path().string()));
  CAPTURE(stopped.output);
  CHECK(stopped.status == 130);
  CHECK(contains(stopped.output, "continue with: RATPLUS="));
  CHECK(!fs::is_empty(base.scratch / "ruler/base/checkpoints"));
}

TEST_CASE("a supervised task: samples, fine-tuning, answers, F1 and ROUGE-L") {
  const Pretrained base;
  std::string training, asked;
  for (int i = 0; i < 24; ++i) {
    std::string story;
    for (int word = 0; word < 10 * i; ++word) story += fmt::format("lo{} ", word % 3);
    const auto prompt = fmt::format("Story: {}\\n\\nQuestion: who {}?\\n\\nAnswer:", story, i);
    training += fmt::format("{{\"prompt\": \"{}\", \"completion\": \"lo ba {}\"}}\n", prompt, i);
    asked += fmt::format(
        "{{\"prompt\": \"{}\", \"meta\": {{\"task\": \"story\", \"answers\": [\"lo ba {}\", \"ba\"]}}}}\n",
        prompt, i);
  }
  write_whole_file(base.scratch / "train.jsonl", training);
  write_whole_file(base.scratch / "asked.jsonl", asked);
  const auto result = test::shell(fmt::format(
      "set -e; cd {0}; {1} samples train.jsonl --output samples --tokenizer {2} --sequence-length 192 "
      "--encode apart "
      "--cut middle --pad; {1} train {3} --set job.kind=finetune job.from=base job.directory=tuned "
      "data.directory=samples data.sequence_length=192 schedule.steps=2; {1} generate tuned --input "
      "asked.jsonl --output "
      "answers.jsonl --max-tokens 9 --cut middle; {1} score tuned=answers.jsonl --score f1 --score rouge-l",
      base.scratch.path().string(), RATPLUS_PROGRAM, test::Playground::get().data.string(),
      test::Playground::get().job.string()));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  CHECK(contains(result.output, "| f1 % by task | story, n = 24 |\n|---|---:|\n| tuned | "));
  CHECK(contains(result.output, "| rouge-l % by task | story, n = 24 |\n|---|---:|\n| tuned | "));
  CHECK_FALSE(contains(result.output, "| whole % "));
}

TEST_CASE("ruler.sh: mistakes are named before anything is made") {
  const auto refused = [](const std::string& options) {
    const auto result = test::shell(fmt::format("cd {} && RATPLUS={} jobs/evaluate/ruler.sh {}",
                                                RATPLUS_SOURCE_DIR, RATPLUS_PROGRAM, options));
    CHECK(result.status == 1);
    return result.output;
  };
  CHECK(contains(refused("--prose /tmp"), "give a run to fine-tune"));
  CHECK(contains(refused("/tmp"), "give text for the haystacks with --prose PATH"));
  CHECK(contains(refused("/no/such --prose /tmp"), "/no/such: does not exist"));
  CHECK(contains(refused("/tmp --prose /tmp --part all"), "--part is data, tune or scores, not 'all'"));
  CHECK(contains(refused("/tmp --prose /tmp --only 1"), "--only takes 0 to 0, not '1'"));
}

TEST_CASE("docs/ruler.md names every option of needles and score, and every task and score") {
  const auto page = read_whole_file(fs::path(RATPLUS_SOURCE_DIR) / "docs/ruler.md");
  int options = 0;
  for (const char* command : {"needles", "score"}) {
    for (const auto& name : test::option_names(command)) {
      CAPTURE(name);
      CHECK(contains(page, "`" + name));
      ++options;
    }
  }
  CHECK(options > 20);
}
