// ratplus tokenize: each source of a tokenizer, standard input, what is no token and no text, outputs that are gone.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <fstream>

#include "base/files/pending_file.h"
#include "data/tokenizer/token_numbers.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/checkpoint/checkpoint.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

const fs::path gpt2 = fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json";

/// The line of numbers that the program is to print.
std::string numbers(const fs::path& tokenizer, const std::string& text) {
  std::vector<std::int32_t> tokens;
  data::Tokenizer(tokenizer).encode(text, tokens);
  return data::to_text(tokens) + "\n";
}

test::Result tokenize(const std::string& arguments) {
  return test::ratplus("tokenize " + arguments);
}

void check_refused(const std::string& arguments, const std::string& part, int status = 1) {
  CAPTURE(arguments);
  const auto result = tokenize(arguments);
  CAPTURE(result.output);
  CHECK(result.status == status);
  CHECK(test::contains(result.output, part));
}

}  // namespace

TEST_CASE("tokenize: a file of either kind, a dataset, a run and weights give their tokenizer") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto data = scratch / "data", run = scratch / "run", model = playground.data / "tokenizer.model";
  fs::copy(playground.data, data, fs::copy_options::recursive);
  REQUIRE(test::ratplus(fmt::format("train {} --set job.directory={} data.directory={} job.threads=1 "
                                    "schedule.steps=2 checkpoint.every=0",
                                    playground.job.string(), run.string(), data.string()))
              .status == 0);
  const auto weights = scratch / "a.safetensors", pth = scratch / "a.pth";
  for (const auto& file : {weights, pth})
    REQUIRE(test::ratplus(fmt::format("convert {} {}", run.string(), file.string())).status == 0);
  const auto expected = numbers(model, "ba kelo.");
  for (const auto& source : {model, data, run, checkpoint::step_directory(run, 2), weights, pth}) {
    CAPTURE(source.string());
    const auto result = tokenize(source.string() + " \"ba kelo.\"");
    CHECK(result.status == 0);
    CHECK(result.output == expected);
  }
  const auto other = tokenize(gpt2.string() + " \"ba kelo.\"");
  CHECK(other.output == numbers(gpt2, "ba kelo."));
  CHECK(other.output != expected);

  write_whole_file(scratch / "tokens.bin", std::string("\1\0\2\0\3\0\0\0", 8));
  REQUIRE(test::ratplus(
              fmt::format("import {0} --validation {0} --output {1} --vocab-size 400 --end-of-text-id 0",
                          (scratch / "tokens.bin").string(), (scratch / "imported").string()))
              .status != 0);  // the same file twice
  fs::copy(scratch / "tokens.bin", scratch / "held.bin");
  REQUIRE(
      test::ratplus(fmt::format("import {} --validation {} --output {} --vocab-size 400 --end-of-text-id 0",
                                (scratch / "tokens.bin").string(), (scratch / "held.bin").string(),
                                (scratch / "imported").string()))
          .status == 0);
  check_refused((scratch / "imported").string() + " a",
                "imported without a tokenizer; name the tokenizer's file");
  fs::rename(data, scratch / "moved");
  check_refused(run.string() + " a", data.string() + ", which is not there; name the tokenizer's file");
  check_refused((scratch / "none").string() + " a", "no such file or directory");
  check_refused(playground.job.string() + " a", playground.job.string());
  check_refused("", "a tokenizer is missing", 2);
}

TEST_CASE("tokenize: texts, files and standard input, and back to the same bytes") {
  const test::ScratchDirectory scratch;
  const std::string text = "Once upon a time,\n\n  twice  d\xC3\xA9j\xC3\xA0 vu \xE6\x97\xA5\t\n";
  write_whole_file(scratch / "page.txt", text);
  const auto page = (scratch / "page.txt").string();
  const auto whole = tokenize(fmt::format("{} --file {}", gpt2.string(), page));
  CHECK(whole.status == 0);
  CHECK(whole.output == numbers(gpt2, text));
  const auto piped = test::shell(fmt::format("{} <{}", test::command("tokenize " + gpt2.string()), page));
  CHECK(piped.output == whole.output);
  const auto two = tokenize(fmt::format("{} one \"two words\" --file {}", gpt2.string(), page));
  CHECK(two.output == numbers(gpt2, "one") + numbers(gpt2, "two words") + whole.output);
  CHECK(tokenize(gpt2.string() + " \"\"").output == "\n");
  CHECK(test::shell(test::command("tokenize " + gpt2.string()) + " </dev/null").output == "\n");

  const auto back = test::shell(fmt::format("{} <{} | {} >{}", test::command("tokenize " + gpt2.string()),
                                            page, test::command("tokenize --decode " + gpt2.string()),
                                            (scratch / "back.txt").string()));
  CHECK(back.output.empty());
  CHECK(read_whole_file(scratch / "back.txt") == text);
  write_whole_file(scratch / "numbers", numbers(gpt2, "Once upon"));
  CHECK(
      tokenize(fmt::format("{} --decode --file {}", gpt2.string(), (scratch / "numbers").string())).output ==
      "Once upon");
}

TEST_CASE("tokenize: what is no token, no UTF-8 or no file is said") {
  const auto model = (test::Playground::get().data / "tokenizer.model").string();
  check_refused(model + " --decode 5 x", "token 2: \"x\" is no number");
  check_refused(model + " --decode 5 400", "token 2: 400 is outside the vocabulary of 400");
  check_refused(model + " --decode -- 5 -1", "token 2: ");
  check_refused(model + " --file /nowhere/page.txt", "/nowhere/page.txt");
  check_refused(model + " --nonsense", "--nonsense", 2);
  CHECK(tokenize(model + " --decode 399").status == 0);

  const auto bad =
      test::shell("printf \"a\\377b\" | " + test::command("tokenize " + gpt2.string()) + " 2>&1");
  CAPTURE(bad.output);
  CHECK(bad.status == 0);
  CHECK(test::contains(bad.output, "warning: ill-formed UTF-8 in the text became U+FFFD"));
  CHECK(test::contains(bad.output, numbers(gpt2,
                                           "a\xEF\xBF\xBD"
                                           "b")));
}

TEST_CASE(
    "tokenize: an output that is closed or full is an error, and a reader who leaves is none to wait for") {
  for (const std::string arguments : {" one", " --decode 5"}) {
    for (const std::string to : {">&-", ">/dev/full"}) {
      CAPTURE(arguments + to);
      const auto result = test::shell(test::command("tokenize " + gpt2.string() + arguments) + " " + to);
      CAPTURE(result.output);
      CHECK(result.status == 1);
      CHECK(test::contains(result.output, "standard output"));
    }
  }
  // 1,000,000 numbers are more than a pipe holds.
  const auto left = test::shell(
      fmt::format("yes word | head -n 500000 | {} | head -c 1", test::command("tokenize " + gpt2.string())));
  CHECK(left.status == 0);
  CHECK(left.seconds < 60);
}
