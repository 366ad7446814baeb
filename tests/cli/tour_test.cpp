// Every command once, as a new user would go: prepare, pretrain, adapt, evaluate, inspect, report.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

TEST_CASE("pretrain, adapt, evaluate, inspect, report") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto pretrained = (scratch / "pretrained").string();
  const auto adapted = (scratch / "adapted").string();
  const auto train =
      fmt::format("train {} --set data.directory={} ", playground.job.string(), playground.data.string());

  const auto first = test::ratplus(train + "job.directory=" + pretrained, 2);
  CAPTURE(first.output);
  REQUIRE(first.status == 0);
  for (const char* part : {"parameters", "memory a rank", "step 20/20", "loss[8,0,0]", "loss[dense]",
                           "tokens/s", "left", "validation at step 20", "saved "}) {
    CAPTURE(part);
    CHECK(test::contains(first.output, part));
  }
  for (const char* file : {"job.toml", "log.txt", "metrics.jsonl", "loss.svg"}) {
    CHECK(fs::file_size(fs::path(pretrained) / file) > 0);
  }

  const auto second =
      test::ratplus(train + "job.kind=adapt job.recipe=plain job.pattern=8,0,2 job.from=" + pretrained +
                        " job.directory=" + adapted + " data.sampling=random schedule.steps=10",
                    2);
  CAPTURE(second.output);
  REQUIRE(second.status == 0);

  const auto json = (scratch / "eval.json").string();
  const auto evaluate = "eval " + adapted + " --data " + playground.data.string() +
                        " --pattern dense 8,0,2 none,16,1 --json " + json;
  std::vector<double> losses;
  for (const int ranks : {0, 3}) {
    const auto result = test::ratplus(evaluate, ranks);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    const auto results = parse_json(read_whole_file(json))["results"];
    REQUIRE(results.size() == 3);
    for (const auto& entry : results) {
      losses.push_back(entry["loss"]);
      CHECK(entry["perplexity"].get<double>() == doctest::Approx(std::exp(losses.back())));
    }
  }
  for (std::size_t p = 0; p < 3; ++p) {  // any number of ranks, the same loss
    CHECK(losses[p] == doctest::Approx(losses[p + 3]).epsilon(1e-6));
    CHECK(losses[p] > 1);
    CHECK(losses[p] < std::log(400.0));
  }
  CHECK(losses[0] != losses[1]);

  // Columns stay below their heads, however long a pattern's name is.
  const auto wide =
      test::ratplus("eval " + pretrained + " --sequences 1 --pattern dense none,1234567890,1234567890");
  CAPTURE(wide.output);
  CHECK(test::contains(
      wide.output,
      "pattern                         loss   perplexity   bits/byte\ndense                        "));

  CHECK(test::contains(test::ratplus("inspect " + pretrained).output, "step-00000020"));
  const auto inspected = test::ratplus("inspect " + pretrained + "/checkpoints/step-00000020");
  CHECK(test::contains(inspected.output, "backbone.layers.0.seq_layer.in_proj.weight"));
  CHECK(test::contains(inspected.output, "40 updates"));
  CHECK(test::contains(test::ratplus("inspect " + playground.data.string() + " --text 0,20").output,
                       "tokenizer"));
  CHECK(test::ratplus("inspect " + playground.job.string()).status == 1);  // job.directory is not given in it

  const auto svg = scratch / "curves.svg";
  const auto report = test::ratplus("report " + pretrained + " " + adapted + " --output " + svg.string());
  CAPTURE(report.output);
  CHECK(report.status == 0);
  CHECK(test::contains(read_whole_file(svg), "<svg"));
  const auto page = scratch / "pretrained+adapted.html";  // beside several runs
  REQUIRE(test::ratplus("report " + pretrained + " " + adapted).status == 0);
  CHECK(test::contains(read_whole_file(page), "job.recipe"));  // in which the two differ
  CHECK(test::contains(test::ratplus("watch " + pretrained).output, "step 20 of 20"));
  CHECK(test::ratplus("report " + pretrained + " --output curves.png").status == 2);
}

TEST_CASE("--print-config prints a job file that gives the same job") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto settings = " --set job.directory=x data.directory=y log.every=3 --print-config";
  const auto printed = test::ratplus("train " + playground.job.string() + settings);
  REQUIRE(printed.status == 0);
  CHECK(test::contains(printed.output, "every = 3"));
  write_whole_file(scratch / "again.toml", printed.output);
  CHECK(test::ratplus("train " + (scratch / "again.toml").string() + " --print-config").output ==
        printed.output);
}

TEST_CASE("bench times every operation") {
  const auto result =
      test::ratplus("bench ops --sequence-length 128 --width 64 --head-dim 32 --vocab 100 --threads 1");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  for (const char* part : {"ceilings", "attention dense", "attention 64,0,0", "recurrence", "AdamW"}) {
    CHECK(test::contains(result.output, part));
  }
}

TEST_CASE("every command explains itself") {
  CHECK(test::ratplus("--help").status == 0);
  for (const std::string name :
       {"prepare", "samples", "needles", "import", "train", "plan", "submit", "eval", "generate", "score",
        "serve", "convert", "inspect", "report", "watch", "bench", "data-bench"}) {
    CAPTURE(name);
    CHECK(test::contains(test::ratplus("--help").output, "  " + name));
    const auto help = test::ratplus(name + " --help");
    CHECK(help.status == 0);
    CHECK(test::contains(help.output, "usage: ratplus " + name));
    CHECK(test::contains(help.output, "example"));
  }
}
