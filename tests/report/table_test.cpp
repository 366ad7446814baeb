#include "lib/report/table.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cmath>

#include "tests/report/run_fixture.h"

namespace ratplus::report {
namespace {

/// A run of the plain recipe (`trained` not empty) or the joint one, with these final losses.
RunMetrics make_run(const std::string& name, const std::string& trained, std::vector<PatternLoss> losses) {
  RunMetrics run;
  run.directory = "runs/" + name;
  run.name = name;
  if (trained.empty()) {
    run.add_step({10, 1000, {{"64,0,0", 5}, {"dense", 5}}});
  } else {
    run.add_step({10, 1000, {{trained, 5}}});
  }
  run.add_validation({10, 1000, std::move(losses)});
  return run;
}

const RunMetrics pretrained =
    make_run("pretrain", "", {{"dense", std::log(40)}, {"16,0,4", std::log(60)}, {"64,0,4", std::log(90.5)}});

}  // namespace

TEST_CASE("columns are aligned") {
  CHECK(format_table({{"run", "dense"}, {"a", "1.00"}, {"longer", "100.00"}}) ==
        "  run       dense\n"
        "  a          1.00\n"
        "  longer   100.00\n");
}

TEST_CASE("a cell of Markdown stays one cell") {
  CHECK(markdown_cell("D = 16, W = 64") == "D = 16, W = 64");
  CHECK(markdown_cell("a|b\n|c\x1b[1m\x7f") == "a\\|b \\|c [1m ");
  CHECK(markdown_cell("a\\|b") == "a\\\\\\|b");
  CHECK(markdown_cell("").empty());
}

TEST_CASE("adaptation: before by the pretrained run, after by each adapted one, dense stays") {
  const RunMetrics d16 = make_run("d16", "16,0,4", {{"dense", std::log(43)}, {"16,0,4", std::log(44)}});
  const RunMetrics d64 = make_run("d64", "64,0,4", {{"16,0,4", std::log(99)}, {"64,0,4", std::log(47.25)}});
  CHECK(adaptation_table(pretrained, {d16, d64}) ==
        "Validation perplexity\n"
        "                      dense   D = 16, I = 4   D = 64, I = 4\n"
        "  before adaptation   40.00           60.00           90.50\n"
        "  after adaptation    40.00           44.00           47.25\n");
}

TEST_CASE("adaptation: a run without its result, or that was not adapted, is named") {
  const RunMetrics no_result = make_run("d16", "16,0,4", {{"dense", 3}});
  CHECK(fails_saying([&] { adaptation_table(pretrained, {no_result}); }, "runs/d16", "D = 16, I = 4"));
  const RunMetrics unknown_before = make_run("d8", "8,0,4", {{"8,0,4", 3}});
  CHECK(fails_saying([&] { adaptation_table(pretrained, {unknown_before}); }, "runs/pretrain", "8,0,4"));
  CHECK(fails_saying([&] { adaptation_table(pretrained, {pretrained}); }, "runs/pretrain", "plain"));
}

TEST_CASE("joint table: a row a run, a column a pattern, a dash where nothing was measured") {
  RunMetrics no_validation = make_run("young", "dense", {});
  no_validation.last_validation.reset();
  const RunMetrics baseline = make_run("baseline", "dense", {{"dense", std::log(41)}});
  CHECK(joint_table({pretrained, baseline, no_validation}) ==
        "Validation perplexity\n"
        "  run        dense   D = 16, I = 4   D = 64, I = 4\n"
        "  pretrain   40.00           60.00           90.50\n"
        "  baseline   41.00               -               -\n"
        "  young          -               -               -\n");
}

TEST_CASE("a run's own table") {
  CHECK(final_table(make_run("a", "dense", {{"dense", std::log(41)}})) ==
        "a: last validation, step 10\n"
        "  pattern     loss   perplexity\n"
        "  dense     3.7136        41.00\n");
  RunMetrics evaluated = pretrained;
  evaluated.evaluation = Measurement{10, 0, {{"dense", std::log(39)}}};
  CHECK(final_table(evaluated).find("pretrain: evaluation, step 10") == 0);
  CHECK(final_table(evaluated).find("39.00") != std::string::npos);
}

TEST_CASE("columns are as wide as what is shown in them, whatever its bytes") {
  CHECK(format_table(
            {{"run", "loss"}, {"\u00e9-\u65e5\u672c", "1.00"}, {"e\u0301", "10"}, {"longer name", "1"}}, 0) ==
        "run           loss\n"
        "\u00e9-\u65e5\u672c        1.00\n"
        "e\u0301               10\n"
        "longer name      1\n");
  CHECK(format_table({{"a", "b", "c"}, {"1"}}, 0) == "a   b   c\n1\n");  // no blanks at the end
}

TEST_CASE("a joint table that is wider than a terminal has the patterns as rows") {
  std::vector<PatternLoss> losses;
  for (int d = 1; d <= 12; ++d) losses.push_back({fmt::format("{},16,4", 1 << d), std::log(40 + d)});
  const RunMetrics many = make_run("many", "", losses);
  const RunMetrics few = make_run("few", "", {{"2,16,4", std::log(39)}});
  const auto table = joint_table({many, few});
  CHECK(
      table.starts_with("Validation perplexity\n  pattern                    many     few\n"
                        "  D = 2, W = 16, I = 4      41.00   39.00\n"
                        "  D = 4, W = 16, I = 4      42.00       -\n"));
}

TEST_CASE("losses that are not finite are a dash, not a number's name") {
  const RunMetrics diverged = make_run("diverged", "", {{"dense", std::nan("")}});
  CHECK(final_table(diverged).find("nan") == std::string::npos);
  CHECK(joint_table({diverged}).find("nan") == std::string::npos);
}

}  // namespace ratplus::report
