// Outputs of commands: what they read is not replaced, nor another file, and what was printed stays where a file fails.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <filesystem>

#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// A run, tokens and answers.
struct Outputs {
  test::ScratchDirectory scratch;
  const std::string run = (scratch / "run").string();
  const std::string tokens = (scratch / "tokens.txt").string();
  const std::string answers = (scratch / "answers.jsonl").string();

  Outputs() {
    ok(fmt::format("train {} --set data.directory={} job.directory={} schedule.steps=1",
                   test::Playground::get().job.string(), test::Playground::get().data.string(), run));
    write_whole_file(tokens, "1 2 3 4\n5 6 7 8\n");
    write_whole_file(answers, R"({"id":"a/0","text":"12","meta":{"task":"a","outputs":["12"],"depth":5}})"
                              "\n");
  }
  static std::string ok(const std::string& arguments) {
    const auto result = test::ratplus(arguments);
    CAPTURE(arguments);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    return result.output;
  }
  /// The command says so in one line, and leaves the file as it was.
  static void refused(const std::string& arguments, const fs::path& file, const std::string& part) {
    const auto before = read_whole_file(file);
    const auto result = test::ratplus(arguments);
    CAPTURE(arguments);
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(test::contains(result.output, part));
    CHECK(test::count(result.output, "\n") == 1);
    CHECK(read_whole_file(file) == before);
  }
};

constexpr const char* is_input = "is what the command reads; give another name";
constexpr const char* is_other =
    "is there already, and was not written by --json; give another name, or remove it";

}  // namespace

TEST_CASE("eval writes over none of its inputs, nor over another file, but over its own results") {
  const Outputs o;
  const auto link = o.scratch / "link.txt";
  fs::create_symlink(o.tokens, link);
  const auto dump = fmt::format("eval {} --tokens {} --dump-logits ", o.run, o.tokens);
  Outputs::refused(dump + o.tokens, o.tokens, is_input);
  Outputs::refused(dump + link.string(), o.tokens, is_input);
  Outputs::refused(dump + o.answers, o.answers, "was not written by --dump-logits");
  const auto logits = (o.scratch / "logits.h5").string();
  Outputs::ok(dump + logits);
  Outputs::ok(dump + logits);
  const auto eval = fmt::format("eval {} --sequences 1 --json ", o.run);
  Outputs::refused(eval + o.run + "/metrics.jsonl", o.run + "/metrics.jsonl", is_other);
  Outputs::refused(eval + o.run + "/job.toml", o.run + "/job.toml", is_other);
  Outputs::refused(eval + o.answers, o.answers, is_other);  // one line, so JSON too
  const auto data = (test::Playground::get().data / "dataset.json").string();
  Outputs::refused(eval + data, data, is_other);
  const auto json = o.run + "/evaluation.json";
  write_whole_file(json, "");
  Outputs::ok(eval + json);
  const auto first = read_whole_file(json);
  CHECK(parse_json(first)["manifest_sha256"].get<std::string>().size() == 64);
  Outputs::ok(eval + json);
  CHECK(read_whole_file(json) == first);
  CHECK(test::contains(Outputs::ok(eval + "/dev/stdout"), "\"results\": ["));
}

TEST_CASE("eval prints its tables where --json cannot be written") {
  const Outputs o;
  const auto result = test::ratplus(fmt::format("eval {} --sequences 1 --json /dev/full", o.run));
  CAPTURE(result.output);
  CHECK(result.status == 1);
  CHECK(test::contains(result.output, "perplexity"));
  CHECK(test::contains(result.output, "/dev/full"));
}

TEST_CASE("score, plan, check and bench refuse the same") {
  const Outputs o;
  const auto score = fmt::format("score one={} --json ", o.answers);
  Outputs::refused(score + o.answers, o.answers, is_input);
  fs::create_hard_link(o.answers, o.scratch / "hard.jsonl");
  Outputs::refused(score + (o.scratch / "hard.jsonl").string(), o.answers, is_input);
  Outputs::refused(score + o.tokens, o.tokens, is_other);
  const auto json = (o.scratch / "scores.json").string();
  const auto table = Outputs::ok(score + json);
  CHECK(test::contains(table, "| reference % by task | a, n = 1 |\n|---|---:|\n| one | 100.0 ± - |"));
  Outputs::ok(score + json);
  const auto job = o.run + "/job.toml";
  Outputs::refused(fmt::format("plan {0} --json {0}", job), job, is_input);
  Outputs::refused(fmt::format("plan {} --json {}", job, o.answers), o.answers, is_other);
  Outputs::refused(fmt::format("check {0} --json {0}", job), job, is_input);
  Outputs::refused(fmt::format("bench step {0} --json {0}", job), job, is_input);
  Outputs::refused(fmt::format("bench ops --json {}", o.tokens), o.tokens, is_other);
  const auto plan = (o.scratch / "plan.json").string();
  const auto planned = [&](const char* config, const char* gpus) {
    const auto result =
        test::ratplus(fmt::format("plan {}/configs/pretrain/{}.toml --gpus-per-node {} --json {}",
                                  RATPLUS_SOURCE_DIR, config, gpus, plan));
    CAPTURE(result.output);
    CHECK_FALSE(test::contains(result.output, "is there already"));
    return parse_json(read_whole_file(plan));
  };
  CHECK(planned("7b", "2")["fits"] == false);  // a plan that does not fit has no step
  CHECK(planned("1b", "8")["fits"] == true);
  CHECK(planned("1b", "8")["fits"] == true);
  Outputs::refused(fmt::format("eval {0} --continuations {1} --output {1} --force", o.run, o.answers),
                   o.answers, is_input);
}

TEST_CASE("score: numbers of answers stand in the cells where the files differ") {
  const Outputs o;
  const auto two = (o.scratch / "two.jsonl").string();
  write_whole_file(two, read_whole_file(o.answers) +
                            R"({"id":"a/1","text":"","meta":{"task":"a","outputs":["12"],"depth":5}})"
                            "\n");
  const auto table = Outputs::ok(fmt::format("score one={} two={} --score whole", o.answers, two));
  CHECK(test::contains(table,
                       "| whole % by task | a |\n|---|---:|\n| one | 100.0 ± -, n = 1 |\n"
                       "| two | 50.0 ± 50.0, n = 2 |\n"));
}
