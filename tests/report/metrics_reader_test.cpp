#include "lib/report/metrics_reader.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/report/run_fixture.h"

namespace ratplus::report {
namespace {

const std::string joint_half =
    R"([{"pattern":"64,0,0","loss":5.5,"gradient_norm":1},{"pattern":"dense","loss":5.0}])";
const std::string dense_result = R"([{"pattern":"dense","loss":4.5,"perplexity":90.02}])";

}  // namespace

TEST_CASE("steps and validations are read, other kinds passed over") {
  const RunFixture run("plain");
  run.metrics(step_line(10, joint_half) + R"({"kind":"checkpoint","step":10,"path":"x"})" + "\n" +
              validation_line(10, dense_result));
  const RunMetrics metrics = read_metrics(run.directory());
  CHECK(metrics.name == "plain");
  REQUIRE(metrics.steps.size() == 1);
  CHECK(metrics.steps[0].step == 10);
  CHECK(metrics.steps[0].tokens == 10'000);
  REQUIRE(metrics.steps[0].losses.size() == 2);
  CHECK(metrics.steps[0].losses[0].pattern == "64,0,0");
  CHECK(metrics.steps[0].losses[1].loss == 5.0);
  REQUIRE(metrics.validations.size() == 1);
  CHECK(loss_of(metrics.final_result(), "dense") == 4.5);
  CHECK_FALSE(loss_of(metrics.final_result(), "64,0,0").has_value());
}

TEST_CASE("a last line that a crash cut short is left out") {
  const RunFixture run("crashed");
  const std::string second = step_line(20, joint_half);
  run.metrics(step_line(10, joint_half) + second.substr(0, 40));
  CHECK(read_metrics(run.directory()).steps.size() == 1);
  run.metrics(step_line(10, joint_half) +
              second.substr(0, second.size() - 1));  // only the newline is missing
  CHECK(read_metrics(run.directory()).steps.size() == 2);
}

TEST_CASE("any other malformed line is an error with file and line") {
  const RunFixture run("broken");
  const auto read = [&] { read_metrics(run.directory()); };
  const std::string good = step_line(10, joint_half);
  run.metrics(good + "{\"kind\":\"st\n" + good);
  CHECK(fails_saying(read, "metrics.jsonl:2"));
  run.metrics(good + good + "{\"kind\":\"step\",\"step\":30}\n");  // halves are missing
  CHECK(fails_saying(read, "metrics.jsonl:3", "halves"));
  run.metrics(good + "{\"kind\":\"step\",\"step\":\"ten\",\"halves\":[]}\n");
  CHECK(fails_saying(read, "metrics.jsonl:2"));
  run.metrics("[]\n");
  CHECK(fails_saying(read, "metrics.jsonl:1"));
}

TEST_CASE("a directory without metrics is an error that says so") {
  const RunFixture run("empty");
  CHECK(fails_saying([&] { read_metrics(run.directory()); }, "empty/metrics.jsonl", "run directory"));
  run.metrics("");
  CHECK(fails_saying([&] { read_metrics(run.directory()); }, "empty/metrics.jsonl", "no step"));
}

TEST_CASE("what a resumed run does again replaces what it did the first time") {
  const RunFixture run("resumed");
  const std::string again = R"([{"pattern":"dense","loss":2.0}])";
  run.metrics(step_line(10, joint_half) + step_line(20, joint_half) + step_line(30, joint_half) +
              step_line(20, again));
  const RunMetrics metrics = read_metrics(run.directory());
  REQUIRE(metrics.steps.size() == 2);
  CHECK(metrics.steps[1].step == 20);
  CHECK(metrics.steps[1].losses[0].loss == 2.0);
}

TEST_CASE("null stands for the NaN of a diverged run") {
  const RunFixture run("diverged");
  run.metrics(step_line(10, R"([{"pattern":"dense","loss":null}])"));
  CHECK(std::isnan(read_metrics(run.directory()).steps[0].losses[0].loss));
}

TEST_CASE("an evaluation is the final result until a later validation") {
  const RunFixture run("evaluated");
  run.metrics(validation_line(10, dense_result));
  run.write("evaluation.json", R"({"step": 10, "results": [{"pattern": "dense", "loss": 4.25}]})");
  CHECK(loss_of(read_metrics(run.directory()).final_result(), "dense") == 4.25);
  run.metrics(validation_line(10, dense_result) + validation_line(20, dense_result));
  CHECK(loss_of(read_metrics(run.directory()).final_result(), "dense") == 4.5);
  run.write("evaluation.json", "{");
  CHECK(fails_saying([&] { read_metrics(run.directory()); }, "evaluation.json", "ratplus eval"));
}

TEST_CASE("labels of patterns") {
  CHECK(pattern_label("dense") == "dense");
  CHECK(pattern_label("64,0,0") == "D = 64");
  CHECK(pattern_label("1,0,4") == "D = 1, I = 4");
  CHECK(pattern_label("16,256,4") == "D = 16, W = 256, I = 4");
  CHECK(pattern_label("none,64,0") == "no dilation, W = 64");
  CHECK(pattern_label("hybrid(64,0,0 x 12, dense x 12)") == "hybrid(64,0,0 x 12, dense x 12)");
}

}  // namespace ratplus::report
