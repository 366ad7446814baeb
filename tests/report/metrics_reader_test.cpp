#include "lib/report/metrics_reader.h"

#include <doctest/doctest.h>

#include <cmath>

#include "lib/model/pattern_plan.h"
#include "tests/report/run_fixture.h"

namespace ratplus::report {
namespace {

const std::string joint_updates =
    R"([{"pattern":"64,0,0","loss":5.5,"gradient_norm":1},{"pattern":"dense","loss":5.0}])";
const std::string dense_result = R"([{"pattern":"dense","loss":4.5,"perplexity":90.02}])";

}  // namespace

TEST_CASE("steps and validations are read, other kinds passed over") {
  const RunFixture run("plain");
  run.metrics(step_line(10, joint_updates) + R"({"kind":"checkpoint","step":10,"path":"x"})" + "\n" +
              validation_line(10, dense_result));
  const RunMetrics metrics = read_metrics(run.directory());
  CHECK(metrics.name == "plain");
  REQUIRE(metrics.last_step);
  CHECK(metrics.last_step->step == 10);
  CHECK(metrics.last_step->tokens == 10'000);
  CHECK(metrics.tokens_per_step == 1000);
  CHECK(metrics.patterns_of("loss") == std::vector<std::string>{"64,0,0", "dense"});
  CHECK(metrics.find("loss", "dense")->extremes() == Curve{{10, 5.0}});
  CHECK(metrics.find("gradient_norm", "64,0,0")->last() == 1);
  CHECK(metrics.find("gradient_norm", "dense") == nullptr);
  CHECK(metrics.find("learning_rate")->last() == 8e-4);
  CHECK(metrics.find("tokens_per_second")->last() == 1234.5);
  CHECK(metrics.find("tokens") == nullptr);  // where, not what
  CHECK(metrics.find("validation_loss", "dense")->extremes() == Curve{{10, 4.5}});
  CHECK(metrics.saved_step == 10);
  CHECK(loss_of(metrics.final_result(), "dense") == 4.5);
  CHECK_FALSE(loss_of(metrics.final_result(), "64,0,0").has_value());
}

TEST_CASE("a last line that a crash cut short is left out") {
  const RunFixture run("crashed");
  const std::string second = step_line(20, joint_updates);
  run.metrics(step_line(10, joint_updates) + second.substr(0, 40));
  const auto steps = [&] { return read_metrics(run.directory()).find("loss", "dense")->extremes().size(); };
  CHECK(steps() == 1);
  run.metrics(step_line(10, joint_updates) +
              second.substr(0, second.size() - 1));  // only the newline is missing
  CHECK(steps() == 2);
}

TEST_CASE("any other malformed line is an error with file and line") {
  const RunFixture run("broken");
  const auto read = [&] { read_metrics(run.directory()); };
  const std::string good = step_line(10, joint_updates);
  run.metrics(good + "{\"kind\":\"st\n" + good);
  CHECK(fails_saying(read, "metrics.jsonl:2"));
  run.metrics(good + good + "{\"kind\":\"step\",\"step\":30}\n");  // updates are missing
  CHECK(fails_saying(read, "metrics.jsonl:3", "updates"));
  run.metrics(good + "{\"kind\":\"step\",\"step\":\"ten\",\"updates\":[]}\n");
  CHECK(fails_saying(read, "metrics.jsonl:2"));
  for (const char* other : {"[]", "5", "null", "{}", R"({"kind":"step","step":null,"updates":[]})",
                            R"({"kind":"checkpoint","step":null})", R"({"kind":5,"step":5})"}) {
    CAPTURE(other);
    run.metrics(std::string(other) + "\n");
    CHECK(fails_saying(read, "metrics.jsonl:1"));
  }
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
  run.metrics(step_line(10, joint_updates) + step_line(20, joint_updates) + step_line(30, joint_updates) +
              step_line(20, again));
  const RunMetrics metrics = read_metrics(run.directory());
  CHECK(metrics.find("loss", "dense")->extremes() == Curve{{10, 5.0}, {20, 2.0}});
}

TEST_CASE("null stands for the NaN of a diverged run") {
  const RunFixture run("diverged");
  run.metrics(step_line(10, R"([{"pattern":"dense","loss":null}])"));
  const RunMetrics metrics = read_metrics(run.directory());
  CHECK(std::isnan(metrics.last_step->losses[0].loss));
  CHECK(std::isnan(metrics.find("loss", "dense")->last()));
  CHECK(metrics.find("loss", "dense")->not_finite() == 1);
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

TEST_CASE("what a line says of its ranks is read, and kinds of lines that are not known are passed over") {
  const RunFixture run("health");
  std::string line = step_line(10, joint_updates);
  line.insert(line.size() - 2,
              R"(,"health":{"lag_seconds":0.25,"slowest_rank":1,"straggler":false,"rank_seconds":[1,2]})");
  run.metrics(line + R"({"kind":"not_finite","step":11,"pattern":"dense","loss":null,"file":"x"})" + "\n");
  const RunMetrics metrics = read_metrics(run.directory());
  CHECK(metrics.find("health_lag_seconds")->last() == 0.25);
  CHECK(metrics.find("health_rank_seconds") == nullptr);
  CHECK(metrics.find("not_finite_loss") == nullptr);
  run.metrics(line + R"({"kind":"differing","time":6,"step":8,"found_step":12,"difference":"step: rank 1"})" +
              "\n");
  MetricsReader again(run.directory());
  again.update();
  REQUIRE(again.metrics().went_back);
  CHECK(again.metrics().went_back->from == 12);
  CHECK(again.metrics().went_back->to == 8);
  CHECK(again.metrics().went_back->difference == "step: rank 1");
}

TEST_CASE("a file that grows: whole lines are taken in as they come, half a line when it is whole") {
  const RunFixture run("growing");
  MetricsReader reader(run.directory());
  CHECK_FALSE(reader.update());  // not there yet
  const std::string first = step_line(10, joint_updates), second = step_line(20, joint_updates);
  run.metrics(first + second.substr(0, 40));
  CHECK(reader.update());
  CHECK(reader.metrics().last_step->step == 10);
  CHECK_FALSE(reader.update());
  run.append(second.substr(40, second.size() - 41));  // all but the newline
  CHECK_FALSE(reader.update());
  run.append("\n");
  CHECK(reader.update());
  CHECK(reader.metrics().find("loss", "dense")->extremes().size() == 2);
}

TEST_CASE("a long file may be taken in part by part") {
  const RunFixture run("parts");
  std::string text;
  for (int step = 1; step <= 20'000; ++step) text += step_line(step, joint_updates);  // some megabytes
  run.metrics(text);
  MetricsReader reader(run.directory());
  int parts = 0;
  do {
    CHECK(reader.update(1));
    ++parts;
  } while (reader.behind());
  CHECK(parts >= 3);
  CHECK(reader.metrics().last_step->step == 20'000);
  CHECK_FALSE(reader.update(1));
}

TEST_CASE("a file that a resumed run has put in its place is read from its beginning") {
  const RunFixture run("replaced");
  run.metrics(step_line(10, joint_updates) + step_line(20, joint_updates) + step_line(30, joint_updates));
  MetricsReader reader(run.directory());
  reader.update();
  CHECK(reader.metrics().last_step->step == 30);
  run.write("new", step_line(10, joint_updates));
  std::filesystem::rename(run.directory() / "new", run.directory() / "metrics.jsonl");
  CHECK(reader.update());
  CHECK(reader.metrics().last_step->step == 10);
  CHECK(reader.metrics().name == "replaced");
}

TEST_CASE("updates of the same pattern are kept apart") {
  const RunFixture run("same");
  const std::string update = R"({"pattern":"dense","loss":5,"gradient_norm":1})";
  run.metrics(step_line(10, "[" + update + "," + update + "]"));
  CHECK(read_metrics(run.directory()).patterns_of("loss") ==
        std::vector<std::string>{"dense", "dense, second update"});
  CHECK(read_metrics(run.directory()).patterns_of("gradient_norm").size() == 2);
}

TEST_CASE("a line without end is no line of metrics, and is not kept in memory") {
  const RunFixture run("endless");
  run.metrics(std::string(20 << 20, 'x'));
  CHECK(fails_saying([&] { read_metrics(run.directory()); }, "metrics.jsonl:1", "more than"));
}

TEST_CASE("labels of patterns") {
  CHECK(pattern_label("dense") == "dense");
  CHECK(pattern_label("64,0,0") == "D = 64");
  CHECK(pattern_label("1,0,4") == "D = 1, I = 4");
  CHECK(pattern_label("16,256,4") == "D = 16, W = 256, I = 4");
  CHECK(pattern_label("none,64,0") == "no dilation, W = 64");
  CHECK(pattern_label("hybrid(64,0,0 x 12, dense x 12)") == "hybrid(64,0,0 x 12, dense x 12)");
}

TEST_CASE("every label of a pattern can be given back as a pattern") {
  using model::PatternPlan;
  std::vector<Pattern> patterns;
  for (const std::int64_t dilation :
       {Pattern::no_dilation, std::int64_t{1}, std::int64_t{2}, std::int64_t{64}})
    for (const std::int64_t window : {0, 1, 256, 4096})
      for (const std::int64_t sinks : {0, 1, 4, 128}) patterns.push_back({dilation, window, sinks});
  std::vector<PatternPlan> plans;
  for (const auto& a : patterns) {
    plans.emplace_back(a);
    const auto& b = patterns[(plans.size() * 7) % patterns.size()];
    plans.emplace_back(std::vector<std::vector<Pattern>>{{a}, {a}, {b}});
    plans.emplace_back(std::vector<std::vector<Pattern>>{{a}, {b}, {a}, {b}});
    plans.emplace_back(std::vector<std::vector<Pattern>>{{a, b}});
    plans.emplace_back(std::vector<std::vector<Pattern>>{{a, b, b}, {b, a, b}, {a}});
  }
  for (const auto& plan : plans) {
    const auto label = pattern_label(plan.describe());
    CAPTURE(label);
    CHECK(model::parse_plan(label).describe() == plan.describe());
    CHECK(model::parse_plan(pattern_label(plan.describe() + ", second update")).describe() ==
          plan.describe());
    CHECK(pattern_label(label) == label);
  }
}

TEST_CASE("runs of the same name are told apart by as much of their paths as it takes") {
  using Names = std::vector<std::string>;
  CHECK(telling_names({"/x/a", "/x/b"}) == Names{"a", "b"});
  CHECK(telling_names({"/x/a/run", "/x/b/run", "/x/other"}) == Names{"a/run", "b/run", "other"});
  CHECK(telling_names({"/x/a/1/run", "/x/b/1/run/"}) == Names{"a/1/run", "b/1/run"});
  CHECK(telling_names({"/run", "/x/run"}) == Names{"run", "x/run"});
  CHECK(telling_names({"/x/run", "/x/../x/./run/"}) == Names{"run", "run"});
  CHECK(telling_names({"/"}) == Names{"/"});
  const auto here = std::filesystem::current_path().filename().string();
  CHECK(telling_names({"."}) == Names{here});
  CHECK(telling_names({"run", "sub/run"}) == Names{here + "/run", "sub/run"});

  const RunFixture first("first"), second("second");
  for (const RunFixture* fixture : {&first, &second}) {
    std::filesystem::create_directories(fixture->directory() / "run");
    fixture->write("run/metrics.jsonl", step_line(1, R"([{"pattern":"dense","loss":4}])"));
  }
  const auto runs = read_metrics(std::vector{first.directory() / "run", second.directory() / "run"});
  CHECK(runs[0].name == "first/run");
  CHECK(runs[1].name == "second/run");
}

}  // namespace ratplus::report
