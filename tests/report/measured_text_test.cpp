// Results that do not compare are named, and an evaluation of another run is not the run's.
#include "lib/report/measured_text.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/files/sha256.h"
#include "lib/report/page.h"
#include "lib/report/table.h"
#include "tests/report/run_fixture.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::report {
namespace {

namespace fs = std::filesystem;
using test::contains;

/// A plain run under D = 16, evaluated on 64 sequences of 32 tokens.
RunMetrics evaluated_run(const std::string& name) {
  RunMetrics run;
  run.directory = "runs/" + name;
  run.name = name;
  run.add_step({10, 1000, {{"16,0,4", 5}}});
  run.evaluation = {.step = 10,
                    .tokens = 0,
                    .losses = {{"dense", std::log(40)}, {"16,0,4", std::log(50)}},
                    .sequence_length = 32,
                    .data = "data/a",
                    .split = "validation",
                    .sequences = 64};
  return run;
}

std::string compared_page(const std::vector<RunMetrics>& runs) {
  return make_page(runs, std::vector<JobSettings>(runs.size()), 1'700'000'000);
}

constexpr const char* unlike = "Measured on different text, so that losses do not compare: ";

/// Where runs are made, moved and evaluated.
struct Place {
  test::ScratchDirectory scratch;

  fs::path run(const std::string& name, double time, const std::string& home = {}) const {
    const auto directory = scratch / name;
    fs::create_directories(directory);
    std::ofstream(directory / "metrics.jsonl")
        << fmt::format(R"({{"kind":"step","time":{},"step":20,"tokens":10,"updates":[]}})", time) << "\n"
        << R"({"kind":"validation","step":20,"tokens":10,"results":[{"pattern":"dense","loss":4}]})"
        << "\n";
    std::ofstream(directory / "job.toml")
        << fmt::format("[job]\ndirectory = \"{}\"\n", home.empty() ? directory.string() : home);
    return directory;
  }
  void checkpoint(const fs::path& run, const std::string& manifest) const {
    fs::create_directories(run / "checkpoints/step-00000020");
    std::ofstream(run / "checkpoints/step-00000020/manifest.json") << manifest;
  }
  /// As `ratplus eval` writes it.
  static void evaluate(const fs::path& run, const fs::path& of, int step = 20,
                       const std::string& manifest = {}) {
    std::ofstream(run / "evaluation.json") << fmt::format(
        R"({{"checkpoint":"{}/checkpoints/step-{:08}","step":{},{}"results":[{{"pattern":"dense","loss":3}}]}})",
        of.string(), step, step,
        manifest.empty() ? "" : fmt::format("\"manifest_sha256\":\"{}\",", sha256_hex(manifest)));
  }
};

/// Whether the run's evaluation is taken.
bool is_taken(const fs::path& run) {
  const auto metrics = read_metrics(run);
  CHECK(metrics.evaluation.has_value() == metrics.not_its_evaluation.empty());
  return metrics.evaluation.has_value();
}

}  // namespace

TEST_CASE("results that compare have no note, whatever is not known of them") {
  const RunMetrics a = evaluated_run("a");
  RunMetrics b = evaluated_run("b");
  CHECK(unlike_results({a, b}).empty());
  b.evaluation->data.clear(), b.evaluation->split.clear(), b.evaluation->sequences = 0;
  b.evaluation->sequence_length = 0;
  CHECK(unlike_results({a, b}).empty());
  CHECK(joint_table({a, b}).starts_with("Validation perplexity\n"));
  CHECK_FALSE(contains(compared_page({a, b}), unlike));
}

TEST_CASE("results of other text, lengths, splits and kinds are named in tables and on the page") {
  const RunMetrics a = evaluated_run("a");
  const auto named = [&](const RunMetrics& b) {
    const auto table = joint_table({a, b});
    CHECK(contains(table, "erplexity\n"));
    CHECK(contains(compared_page({a, b}), unlike));
    return table.starts_with(unlike) ? table.substr(0, table.find('\n')) : "";
  };
  RunMetrics b = evaluated_run("b");
  b.evaluation->sequence_length = 8;
  CHECK(named(b) ==
        unlike + std::string("a by its evaluation on 64 sequences of 32 tokens of data/a (validation), "
                             "b by its evaluation on 64 sequences of 8 tokens of data/a (validation)"));
  CHECK(fails_saying([&] { adaptation_table(a, {b}); }, "runs/b", "8 tokens, runs/a of 32"));
  b = evaluated_run("b");
  b.evaluation->data = "data/b";
  CHECK(contains(named(b), "of data/b"));
  CHECK(adaptation_table(a, {b}).starts_with(unlike));
  b = evaluated_run("b");
  b.evaluation->sequences = 4;
  CHECK(contains(named(b), "b by its evaluation on 4 sequences"));
  b = evaluated_run("b");
  b.add_validation({10, 1000, {{"dense", 4}}});
  b.evaluation.reset();
  CHECK(contains(named(b), "b by its last validation"));
  b = evaluated_run("b");
  b.evaluation->split = "train";
  CHECK(contains(named(b), "(train)"));
  CHECK(contains(joint_table({a, b}), "\nPerplexity\n"));
  CHECK(joint_table({b}).starts_with("Training perplexity\n"));
  CHECK(contains(final_table(b), "b: evaluation on the training split, step 10"));
  CHECK(contains(compared_page({b}), "Of the training split, not of held-out text: b<"));
}

TEST_CASE("one dataset by two names is one text") {
  const test::ScratchDirectory scratch;
  for (const char* name : {"one", "two", "other"}) {
    fs::create_directories(scratch / name);
    std::ofstream(scratch / name / "dataset.json") << (name == std::string("other") ? "{2}" : "{1}");
  }
  RunMetrics a = evaluated_run("a"), b = evaluated_run("b");
  a.evaluation->data = (scratch / "one").string();
  b.evaluation->data = (scratch / "two").string();
  CHECK(unlike_results({a, b}).empty());
  b.evaluation->data = (scratch / "other").string();
  CHECK_FALSE(unlike_results({a, b}).empty());
}

TEST_CASE("a validation's text is that of the job") {
  const auto run = [](const std::string& name, int length) {
    const RunFixture fixture(name);
    fixture.metrics(validation_line(10, R"([{"pattern":"dense","loss":4.5}])"));
    fixture.write("job.toml", fmt::format("[data]\ndirectory = \"data\"\nsequence_length = {}\n", length));
    return read_metrics(fixture.directory());
  };
  const auto a = run("a", 32), b = run("b", 64), c = run("c", 32);
  CHECK(a.last_validation->sequence_length == 32);
  CHECK(contains(joint_table({a, b}), "b by its last validation on 64 tokens of data (validation)"));
  CHECK(unlike_results({a, c}).empty());
}

TEST_CASE("an evaluation of another run or checkpoint is left out with a note") {
  const Place place;
  const auto a = place.run("a", 1), b = place.run("b", 2);
  Place::evaluate(a, a);
  CHECK(is_taken(a));
  Place::evaluate(a, b);
  CHECK_FALSE(is_taken(a));
  const auto metrics = read_metrics(a);
  CHECK(contains(metrics.not_its_evaluation, b.string() + "/checkpoints/step-00000020, another run"));
  CHECK(contains(metrics.not_its_evaluation, "ratplus eval " + a.string()));
  CHECK(contains(final_table(metrics), "note: "));
  CHECK(contains(compared_page({metrics}), "another run"));
  // From a directory that is not this one, beside the run.
  Place::evaluate(a, "elsewhere/b");
  CHECK_FALSE(is_taken(a));
  Place::evaluate(a, a, 40);
  CHECK(contains(read_metrics(a).not_its_evaluation, "is of step 40, and the run's last is 20"));
  // The manifest tells, whatever the path.
  place.checkpoint(a, "of a");
  Place::evaluate(a, a, 20, "of another start");
  CHECK(contains(read_metrics(a).not_its_evaluation, "is not this run's step-00000020"));
  Place::evaluate(a, "gone/x", 20, "of a");
  CHECK(is_taken(a));
}

TEST_CASE("a run that was moved, renamed or copied keeps its evaluation") {
  const Place place;
  const auto a = place.run("a", 1);
  Place::evaluate(a, a);
  fs::rename(a, place.scratch / "moved");
  CHECK(is_taken(place.scratch / "moved"));
  // Another run has been trained in its place.
  const auto next = place.run("a", 3);
  CHECK(is_taken(place.scratch / "moved"));
  // A copy of the small files, with the run itself still there.
  const auto original = place.run("original", 4);
  const auto copy = place.scratch / "copy";
  fs::copy(original, copy, fs::copy_options::recursive);
  Place::evaluate(copy, original);
  CHECK(is_taken(copy));
  Place::evaluate(copy, "weights/export.safetensors");
  CHECK(is_taken(copy));
}

}  // namespace ratplus::report
