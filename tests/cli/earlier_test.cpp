// Files of an earlier version of the program (tests/data_files/earlier), read by this one: same results, no warning.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"

using namespace ratplus;
using test::contains;
namespace fs = std::filesystem;

namespace {

/// A copy of the files, since the program writes beside them.
class Earlier {
 public:
  Earlier() {
    fs::copy(fs::path(RATPLUS_SOURCE_DIR) / "tests/data_files/earlier", scratch_.path(),
             fs::copy_options::recursive);
  }
  fs::path operator/(const std::string& name) const { return scratch_ / name; }
  /// The output of a command in the directory of the files; it must end with status 0.
  std::string ok(const std::string& arguments) const {
    const auto result = test::shell("cd " + scratch_.path().string() + " && " + test::command(arguments));
    CAPTURE(arguments);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    return result.output;
  }
  std::string refused(const std::string& arguments) const {
    const auto result = test::shell("cd " + scratch_.path().string() + " && " + test::command(arguments));
    CAPTURE(arguments);
    CAPTURE(result.output);
    REQUIRE(result.status != 0);
    return result.output;
  }

 private:
  test::ScratchDirectory scratch_;
};

struct Update {
  std::string pattern;
  double loss = 0;
  double gradient_norm = 0;  ///< NaN: not finite
  bool made = true;
};

double number(const nlohmann::json& value) {
  return value.is_null() ? std::nan("") : value.get<double>();
}

/// The updates of all steps of a metrics.jsonl, by either name of the list.
std::vector<Update> updates_of(const fs::path& metrics) {
  std::vector<Update> updates;
  std::ifstream in(metrics);
  for (std::string line; std::getline(in, line);) {
    const auto entry = parse_json(line);
    if (entry["kind"] != "step") continue;
    for (const auto& update : entry.contains("updates") ? entry["updates"] : entry["halves"]) {
      updates.push_back({update["pattern"], number(update["loss"]), number(update["gradient_norm"]),
                         update.value("updated", true)});
    }
  }
  return updates;
}

double loss_in(const fs::path& json, std::size_t result = 0) {
  return parse_json(read_whole_file(json))["results"][result]["loss"];
}

/// The earlier version took a validation's sequences from the beginning of the held-out split: all of them are the same.
constexpr const char* all_held_out = "log.validation_sequences=1000";

/// Another processor adds in another order.
doctest::Approx about(double value) {
  return doctest::Approx(value).epsilon(1e-5);
}

}  // namespace

TEST_CASE("an earlier version's run, checkpoint and datasets are described without a warning") {
  const Earlier files;
  for (const char* path :
       {"run", "run/checkpoints/step-00000004", "data", "samples", "weights.safetensors"}) {
    const auto said = files.ok(std::string("inspect ") + path);
    CHECK(!contains(said, "warning"));
    CHECK(!contains(said, "is now"));
  }
  CHECK(contains(files.ok("inspect run"), "8112"));
  CHECK(contains(files.ok("inspect run/checkpoints/step-00000004"), "step       4 (8 updates, 256 tokens)"));
}

TEST_CASE("an earlier version's weights are evaluated to the loss that it measured") {
  const Earlier files;
  const auto said = files.ok("eval run --pattern dense 4,2,1 --json e.json");
  CHECK(!contains(said, "is now"));
  CHECK(loss_in(files / "e.json", 0) == about(4.845064923611093));
  CHECK(loss_in(files / "e.json", 1) == about(4.84501));
  files.ok("eval weights.safetensors --data data --pattern dense --sequence-length 16 --json w.json");
  CHECK(loss_in(files / "w.json") == about(4.84528));
  files.ok("convert run again.safetensors --dtype bfloat16");
  CHECK(read_whole_file(files / "again.safetensors") == read_whole_file(files / "weights.safetensors"));
}

TEST_CASE("an earlier version's run is resumed in the middle of a step to the undisturbed result") {
  for (const char* job : {"job.toml", "new.toml"}) {
    CAPTURE(std::string(job));
    const Earlier files;
    auto text = read_whole_file(files / "job.toml");
    const std::string old = "\nwindow = 16\n";
    text.replace(text.find(old), old.size(), "\nsequence_length = 16\n");
    write_whole_file(files / "new.toml", text);
    const auto said = files.ok(fmt::format("train {} --resume", job));
    CHECK(contains(said, "resumed at step 4"));
    const bool old_key = job == std::string("job.toml");
    CHECK(test::count(said, "job.toml:18: data.window is now data.sequence_length") == (old_key ? 1 : 0));
    CHECK(test::count(said, "is now") == (old_key ? 1 : 0));
    const auto updates = updates_of(files / "run/metrics.jsonl");
    const auto expected = updates_of(files / "whole.jsonl");
    REQUIRE(updates.size() == 16);
    REQUIRE(expected.size() == 16);
    for (std::size_t i = 0; i < updates.size(); ++i) {
      CAPTURE(i);
      CHECK(updates[i].pattern == expected[i].pattern);
      CHECK(updates[i].loss == about(expected[i].loss));
      CHECK(updates[i].made == (i != 2));
      if (i != 2) CHECK(updates[i].gradient_norm == about(expected[i].gradient_norm));
    }
    CHECK(!contains(read_whole_file(files / "run/metrics.jsonl"), "step\":5,\"half\":2"));
  }
}

TEST_CASE("an earlier version's run is reported, before and after it is resumed") {
  const Earlier files;
  const auto before = files.ok("report run");
  CHECK(contains(before, "5.0679"));  // of its validation at step 3
  files.ok(fmt::format("train job.toml --resume --set {}", all_held_out));
  const auto after = files.ok("report run");
  CHECK(contains(after, "4.6456"));
  // Beside a run of the present version: the two names of a key are one setting, in which the runs do not differ.
  files.ok("train job.toml --set job.directory=again");
  fs::create_directories(files / "both");
  files.ok("report run again --output both");
  const auto page = read_whole_file(files / "both/report.html");
  CHECK(contains(page, "job.directory"));
  CHECK(!contains(page, "data.sequence_length"));
  CHECK(!contains(page, "data.window"));
}

TEST_CASE("an earlier version's run and samples begin an adaptation and a fine-tuning") {
  const Earlier files;
  const auto common =
      fmt::format("train job.toml --set job.recipe=plain job.from=run schedule.steps=2 {} ", all_held_out);
  const auto adapted = files.ok(common + "job.kind=adapt job.directory=adapted job.pattern=4,2,1");
  CHECK(contains(adapted, "loss[4,2,1] 4.707"));
  CHECK(contains(adapted, "validation at step 2  [4,2,1] loss 4.667"));
  const auto tuned = files.ok(common + "job.kind=finetune job.directory=tuned data.directory=samples");
  CHECK(contains(tuned, "loss[dense] 5.390"));
  CHECK(contains(tuned, "accuracy token 0.2500"));
}

TEST_CASE("old names of options are read, and a line names the present one") {
  const Earlier files;
  const auto old = files.ok("eval weights.safetensors --data data --window=16 --json w.json");
  CHECK(test::count(old, "ratplus: --window is now --sequence-length") == 1);
  CHECK(loss_in(files / "w.json") == about(4.84528));
  CHECK(contains(files.ok("data-bench data --window 16 --batch 1 --seconds 0.05"), "--window is now"));
  CHECK(contains(files.ok("bench ops --tokens 64 --width 32 --head-dim 16 --vocab 50 --threads 1"),
                 "--tokens is now --sequence-length"));
  std::string lines;
  for (int i = 0; i < 60; ++i)
    lines += fmt::format(R"({{"prompt": "{} ba", "completion": " ke"}})", i) + "\n";
  write_whole_file(files / "lines.jsonl", lines);
  CHECK(contains(files.ok("samples lines.jsonl --output s --tokenizer data/tokenizer.model --length 16 "
                          "--validation-fraction 0.3"),
                 "--length is now --sequence-length"));
  CHECK(contains(files.refused("eval run --window 16 --sequence-length 16"),
                 "--window and --sequence-length are two names of one option; leave --window out"));
}
