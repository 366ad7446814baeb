// The accuracy of fine-tuning: validation writes it, and eval and report print the same.
#include <doctest/doctest.h>

#include <fmt/core.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;

TEST_CASE(
    "eval of a fine-tuned run prints the accuracy that its last validation wrote, with any number of ranks") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto path = [&](const char* name) { return (scratch / name).string(); };
  const auto ok = [](const std::string& arguments, int ranks = 0) {
    const auto result = test::ratplus(arguments, ranks);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    return result.output;
  };
  const auto pretrained = ok(fmt::format("train {} --set data.directory={} job.directory={} schedule.steps=2",
                                         playground.job.string(), playground.data.string(), path("first")));
  CHECK(!test::contains(pretrained, "accuracy"));
  CHECK(!test::contains(ok("eval " + path("first")), "accuracy"));

  std::ofstream lines(scratch / "lines.jsonl");
  // Nothing tells which of the two follows: both are right sometimes, the end of the text always.
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    const char* completion = random() % 5 < 3 ? " a" : " b";
    lines << json_dump(nlohmann::json{{"prompt", fmt::format("{} then", i)}, {"completion", completion}})
          << '\n';
  }
  lines.close();
  ok(fmt::format(
      "samples {} --output {} --tokenizer {}/tokenizer.model --sequence-length 32 --validation-fraction 0.2",
      path("lines.jsonl"), path("samples"), playground.data.string()));
  const auto trained = ok(
      fmt::format(
          "train {} --set job.kind=finetune job.recipe=plain job.pattern=8,0,2 job.from={} job.directory={} "
          "data.directory={} data.sequence_length=32 data.batch=8 data.micro_batch=4 schedule.steps=80 "
          "schedule.peak_lr=1e-2 "
          "log.validation_sequences=1000 log.validation_patterns=[\\\"8,0,2\\\",\\\"dense\\\"]",
          playground.job.string(), path("first"), path("tuned"), path("samples")),
      2);

  const auto validations = test::metrics(scratch / "tuned", "validation");
  REQUIRE(!validations.empty());
  const auto wrote = parse_json(validations.back())["results"];
  REQUIRE(wrote.size() == 2);
  for (const int ranks : {0, 3}) {
    const auto output =
        ok(fmt::format("eval {} --pattern 8,0,2 dense --json {}", path("tuned"), path("e.json")), ranks);
    CHECK(test::contains(output, "token accuracy   completion accuracy"));
    const auto evaluated = parse_json(read_whole_file(path("e.json")))["results"];
    REQUIRE(evaluated.size() == 2);
    for (std::size_t p = 0; p < 2; ++p) {
      for (const char* field : {"token_accuracy", "completion_accuracy"}) {
        CAPTURE(field);
        const double value = wrote[p][field];
        CHECK(value > 0);
        CHECK(value < 1);
        CHECK(evaluated[p][field].get<double>() == value);
        CHECK(test::contains(output, fmt::format("   {:.4f}", value)));
      }
    }
  }
  const auto said =
      fmt::format("accuracy token {:.4f} completion {:.4f}", wrote[0]["token_accuracy"].get<double>(),
                  wrote[0]["completion_accuracy"].get<double>());
  CHECK(test::contains(trained, said));
  const auto reported = ok("report " + path("tuned"));
  CHECK(test::contains(reported, "token accuracy   completion accuracy"));
  CHECK(test::contains(reported, fmt::format("{:.4f}", wrote[0]["completion_accuracy"].get<double>())));
}
