#include "lib/report/tradeoff.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/report/run_fixture.h"
#include "tests/report/xml.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::report {
namespace {

constexpr std::int64_t kib = 1024;

struct Runs {
  std::vector<RunMetrics> runs;
  std::vector<JobSettings> jobs;

  /// `from` empty: pretrained, else adapted to `trained`.
  void add(const std::string& name, const std::string& from, const std::string& trained,
           std::vector<PatternLoss> losses) {
    RunMetrics run;
    run.directory = "runs/" + name;
    run.name = name;
    run.add_step({10, 1000, {{trained, 5}}});
    run.evaluation = {.step = 10, .tokens = 0, .losses = std::move(losses), .sequence_length = 4096};
    runs.push_back(std::move(run));
    JobSettings job;
    job.values = {{"job.kind", from.empty() ? "\"pretrain\"" : "\"adapt\""},
                  {"job.directory", fmt::format("\"runs/{}\"", name)}};
    if (!from.empty()) job.values.emplace_back("job.from", fmt::format("\"runs/{}\"", from));
    jobs.push_back(std::move(job));
  }

  Tradeoff tradeoff() const { return {runs, jobs}; }
};

PatternLoss result(const char* pattern, double loss, std::int64_t bytes) {
  return {.pattern = pattern, .loss = loss, .cache_bytes = bytes};
}

/// Two models, the first adapted to D = 16, and one without patterns.
Runs some() {
  Runs runs;
  runs.add("ours", "", "dense",
           {result("dense", 4.0914, 64 * kib), result("16,0,4", 4.1, 4 * kib),
            result("none,256,0", 4.2, 5 * kib)});
  runs.add("theirs", "", "dense", {result("dense", 4.61, 63 * kib), result("16,0,4", 5.6, 3 * kib)});
  runs.add("ours-d16", "ours", "16,0,4", {result("dense", 4.3, 64 * kib), result("16,0,4", 4.0951, 4 * kib)});
  runs.add("rnn", "", "dense", {result("dense", 4.5, kib)});
  return runs;
}

}  // namespace

TEST_CASE("losses before and after adaptation and caches, a column a model, a row a pattern") {
  const Runs runs = some();
  CHECK(tradeoff_text(runs.tradeoff()) ==
        "Held-out loss, nats a token\n"
        "  pattern                   ours   theirs     rnn\n"
        "  dense                    4.091    4.610   4.500\n"
        "  D = 16, I = 4            4.100    5.600       -\n"
        "  no dilation, W = 256     4.200        -       -\n"
        "\n"
        "  adapted, D = 16, I = 4   4.095        -       -\n"
        "\n"
        "Cache of a sequence of 4096 tokens in bfloat16, KiB\n"
        "  pattern                ours   theirs   rnn\n"
        "  dense                    64       63     1\n"
        "  D = 16, I = 4             4        3     -\n"
        "  no dilation, W = 256      5        -     -\n");
  const auto markdown = tradeoff_markdown(runs.tradeoff());
  CHECK(markdown.find("| pattern | ours | theirs | rnn |\n|---|---:|---:|---:|\n| dense | 4.091 |") !=
        std::string::npos);
  CHECK(xml_error("<div>" + tradeoff_html(runs.tradeoff()) + "</div>").empty());
}

TEST_CASE("JSON has every result of every run, the adapted ones below their model") {
  const Runs runs = some();
  const auto json = nlohmann::json::parse(tradeoff_json(runs.tradeoff()));
  CHECK(json["sequence_length"] == 4096);
  REQUIRE(json["models"].size() == 3);
  const auto& ours = json["models"][0];
  CHECK(ours["results"][1]["loss"] == 4.1);
  CHECK(ours["results"][1]["cache_bytes"] == 4 * kib);
  REQUIRE(ours["adapted"].size() == 1);
  CHECK(ours["adapted"][0]["pattern"] == "16,0,4");
  CHECK(ours["adapted"][0]["results"][0]["loss"] == 4.3);
  CHECK(json["models"][1]["adapted"].empty());
}

TEST_CASE("perplexity by position: a row and a curve of every pattern, before and after adaptation") {
  Runs runs = some();
  CHECK(draw_position_chart(runs.tradeoff()).empty());
  for (auto& run : runs.runs) {
    run.evaluation->positions = {"0-2047", "2048-4095"};
    for (auto& of : run.evaluation->losses) of.by_position = {of.loss + 0.1, of.loss - 0.1};
  }
  const auto text = tradeoff_text(runs.tradeoff());
  CHECK(text.find("Held-out perplexity by position in the sequence\n") != std::string::npos);
  using Row = std::vector<std::string>;
  const auto rows = tradeoff_tables(runs.tradeoff()).back().rows;
  CHECK(rows[0] == Row{"positions", "0-2047", "2048-4095"});
  CHECK(rows[1] == Row{"ours, dense", "66.12", "54.13"});
  CHECK(rows[2] == Row{"ours, D = 16, I = 4", "66.69", "54.60"});
  CHECK(rows[3] == Row{"ours, adapted, D = 16, I = 4", "66.36", "54.33"});
  CHECK(text.find("rnn, dense") != std::string::npos);
  const auto svg = draw_position_chart(runs.tradeoff());
  CHECK(xml_error(svg).empty());
  CHECK(count(svg, "<polyline ") == 3 + 1 + 2 + 1);  // ours with one adapted, theirs, rnn
  CHECK(count(svg, ">position in the sequence<") == 3);
  CHECK(xml_error("<div>" + tradeoff_html(runs.tradeoff()) + "</div>").empty());
}

TEST_CASE("bits per byte have a table of their own where a run's evaluation has them") {
  Runs runs = some();
  CHECK(tradeoff_text(runs.tradeoff()).find("bits per byte") == std::string::npos);
  for (auto& of : runs.runs[0].evaluation->losses) of.bits_per_byte = of.loss / 2;
  runs.runs[2].evaluation->losses[1].bits_per_byte = 1.0238;
  const auto tables = tradeoff_tables(runs.tradeoff());
  using Row = std::vector<std::string>;
  CHECK(tables[1].title == "Held-out bits per byte of text");
  CHECK(tables[1].rows[0] == Row{"pattern", "ours", "theirs", "rnn"});
  CHECK(tables[1].rows[1] == Row{"dense", "2.0457", "-", "-"});
  CHECK(tables[1].rows.back() == Row{"adapted, D = 16, I = 4", "1.0238", "-", "-"});
  const auto json = nlohmann::json::parse(tradeoff_json(runs.tradeoff()));
  CHECK(json["models"][0]["adapted"][0]["results"][1]["bits_per_byte"] == 1.0238);
  CHECK(!json["models"][1]["results"][0].contains("bits_per_byte"));
}

TEST_CASE("settings of size and training have a table, a column a model") {
  Runs runs = some();
  CHECK(tradeoff_text(runs.tradeoff()).find("Models and their pretraining") == std::string::npos);
  runs.jobs[0].values.emplace_back("schedule.peak_lr", "0.0030000000000000001");
  for (const std::size_t r : {0, 1}) {
    runs.jobs[r].values.emplace_back("model.width", r == 0 ? "1024" : "512");
    runs.jobs[r].values.emplace_back("job.precision", "\"bf16\"");
  }
  const auto tables = tradeoff_tables(runs.tradeoff());
  const auto found = std::ranges::find(tables, "Models and their pretraining", &TradeoffTable::title);
  REQUIRE(found != tables.end());
  using Row = std::vector<std::string>;
  REQUIRE(found->rows.size() == 4);
  CHECK(found->rows[0] == Row{"setting", "ours", "theirs", "rnn"});
  CHECK(found->rows[1] == Row{"model.width", "1024", "512", "-"});
  CHECK(found->rows[2] == Row{"schedule.peak_lr", "0.003", "-", "-"});
  CHECK(found->rows[3] == Row{"job.precision", "bf16", "bf16", "-"});
  const auto json = nlohmann::json::parse(tradeoff_json(runs.tradeoff()));
  CHECK(json["models"][0]["settings"]["model.width"] == 1024);
  CHECK(json["models"][0]["settings"]["job.precision"] == "bf16");
  CHECK(!json["models"][2].contains("settings"));
}

TEST_CASE("runs evaluated on different text are named at the beginning") {
  Runs runs = some();
  for (auto& run : runs.runs) {
    run.evaluation->data = "data/a";
    run.evaluation->split = "validation";
    run.evaluation->sequences = 64;
  }
  CHECK(runs.tradeoff().warning.empty());
  const auto warns = [](const Runs& of) {
    const auto tradeoff = of.tradeoff();
    const auto& warning = tradeoff.warning;
    REQUIRE(!warning.empty());
    CHECK(tradeoff_text(tradeoff).starts_with(warning + "\n"));
    CHECK(tradeoff_markdown(tradeoff).starts_with("**" + warning + "**\n"));
    CHECK(count(tradeoff_html(tradeoff), "Evaluated on different text") == 1);
    CHECK(nlohmann::json::parse(tradeoff_json(tradeoff))["warning"] == warning);
    return warning;
  };
  Runs fewer = runs;
  fewer.runs[3].evaluation->sequences = 2;
  CHECK(warns(fewer) ==
        "Evaluated on different text, so that losses do not compare: ours on 64 sequences of data/a "
        "(validation), rnn on 2 sequences of data/a (validation)");
  Runs training = runs;
  training.runs[1].evaluation->split = "train";
  CHECK(warns(training).ends_with("theirs on 64 sequences of data/a (train)"));
  Runs elsewhere = runs;
  elsewhere.runs[1].evaluation->data = "data/b";
  CHECK(warns(elsewhere).ends_with("theirs on 64 sequences of data/b (validation)"));
  // Bytes a token tell more than a path.
  for (const std::size_t r : {0, 1}) {
    auto& of = elsewhere.runs[r].evaluation->losses[0];
    of.bits_per_byte = of.loss * 0.6;
  }
  CHECK(elsewhere.tradeoff().warning.empty());
  elsewhere.runs[1].evaluation->data = "data/a";
  elsewhere.runs[1].evaluation->losses[0].bits_per_byte = elsewhere.runs[1].evaluation->losses[0].loss * 0.61;
  CHECK(!elsewhere.tradeoff().warning.empty());
}

TEST_CASE("scores with standard errors, and speeds, stand beside the losses where a run has them") {
  const test::ScratchDirectory scratch;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((scratch / name).parent_path());
    std::ofstream(scratch / name) << text;
  };
  write(
      "scores/a/results_2026-01-01.json",
      R"({"model_name": "ratplus@16,0,4", "results": {"piqa": {"alias": "piqa", "acc,none": 0.25, "acc_stderr,none": 0.5}}})");
  write("scores/a/results_2026-01-02.json",
        R"({"model_name": "ratplus@16,0,4", "results": {"piqa": {"acc,none": 0.5, "acc_stderr,none": 0.0125},
           "lambada": {"perplexity,none": 12.5, "perplexity_stderr,none": "N/A"}}})");
  write("scores/a/samples_piqa.json", "{");
  write(
      "generation.json",
      R"({"times": [{"kind": "prompt"}, {"kind": "step", "pattern": "16,0,4", "length": 4096, "sequences": 1, "tokens_per_second": 100},
           {"kind": "step", "pattern": "16,0,4", "length": 4096, "sequences": 64, "tokens_per_second": 3000.4}]})");
  Runs runs = some();
  runs.runs[0].scores = read_scores(scratch.path());
  runs.runs[0].speeds = read_speeds(scratch.path());
  CHECK(tradeoff_text(runs.tradeoff()).find("Training") == std::string::npos);
  runs.runs[1].add("tokens_per_second", "", 10, 2000);
  runs.runs[1].add("tokens_per_second", "", 20, 2500);
  runs.runs[1].add("tokens_per_second", "", 30, 100);
  const auto text = tradeoff_text(runs.tradeoff());
  CAPTURE(text);
  CHECK(text.find("                             ours   theirs     rnn\n"
                  "  tokens                    1.00k    1.00k   1.00k\n"
                  "  tokens a second, median       -    2.00k       -\n") != std::string::npos);
  CHECK(text.find("ours, D = 16, I = 4   0.5000 ± 0.0125               12.5000") != std::string::npos);
  CHECK(text.find("ours, D = 16, I = 4     4096          64       3000") != std::string::npos);
  const auto json = nlohmann::json::parse(tradeoff_json(runs.tradeoff()));
  CHECK(json["models"][0]["results"][1]["scores"]["piqa"]["acc"]["standard_error"] == 0.0125);
  CHECK(json["models"][0]["generation"][1]["tokens_per_second"] == 3000.4);
  CHECK(json["models"][1]["training"]["tokens_per_second"] == 2000);
  write("scores/a/results_2026-01-03.json",
        R"({"model_name": "ratplus@16,0,4", "results": {"gsm8k": {"exact_match,strict-match": 0.25,
           "exact_match_stderr,strict-match": 0.01, "exact_match,flexible-extract": 0.5,
           "exact_match_stderr,flexible-extract": 0.02}}})");
  runs.runs[0].scores = read_scores(scratch.path());
  const auto filtered = tradeoff_text(runs.tradeoff());
  CAPTURE(filtered);
  CHECK(filtered.find("gsm8k, exact_match,strict-match   gsm8k, exact_match,flexible-extract") !=
        std::string::npos);
  CHECK(filtered.find("0.2500 ± 0.0100") != std::string::npos);
  CHECK(filtered.find("0.5000 ± 0.0200") != std::string::npos);
  const auto both =
      nlohmann::json::parse(tradeoff_json(runs.tradeoff()))["models"][0]["results"][1]["scores"]["gsm8k"];
  CHECK(both["exact_match,strict-match"]["value"] == 0.25);
  CHECK(both["exact_match,flexible-extract"]["value"] == 0.5);
  CHECK(both["exact_match,flexible-extract"]["standard_error"] == 0.02);
  write("generation.json", "{}");
  CHECK(fails_saying([&] { read_speeds(scratch.path()); }, "generation.json: is not what"));
  CHECK(read_scores(scratch / "none").empty());
}

TEST_CASE(
    "several adaptations to one pattern are a row each, by their tokens, with the distance from dense") {
  Runs runs = some();
  CHECK(adaptation_length_table(runs.tradeoff()).rows.size() == 1);
  runs.add("ours-d16-longer", "ours", "16,0,4", {result("16,0,4", 4.0921, 4 * kib)});
  runs.runs.back().last_step->tokens = 30'000;
  runs.jobs.back().values.emplace_back("schedule.peak_lr", "0.00029999999999999997");
  const auto rows = adaptation_length_table(runs.tradeoff()).rows;
  REQUIRE(rows.size() == 3);
  CHECK(rows[1] == std::vector<std::string>{"ours, D = 16, I = 4", "1.00k", "-", "4.100", "4.095", "+0.004"});
  CHECK(rows[2] ==
        std::vector<std::string>{"ours, D = 16, I = 4", "30.0k", "0.0003", "4.100", "4.092", "+0.001"});
  CHECK(tradeoff_text(runs.tradeoff()).find("Held-out loss by length of adaptation") != std::string::npos);
}

TEST_CASE("a precision is accepted within its bound and within the seeds' difference") {
  struct Model {
    const char* name;
    const char* precision;
    const char* seed;
    double dense, adapted;
    const char* micro_batch = "4";
    const char* device = "\"cuda\"";
  };
  const auto runs_of = [](const std::vector<Model>& models) {
    Runs runs;
    for (const Model& model : models) {
      const auto set = [&] {
        for (const auto& [key, value] :
             {std::pair{"job.precision", model.precision}, std::pair{"job.seed", model.seed},
              std::pair{"data.micro_batch", model.micro_batch}, std::pair{"job.device", model.device},
              std::pair{"model.layers", "8"}, std::pair{"schedule.steps", "10"}})
          runs.jobs.back().values.emplace_back(key, value);
      };
      runs.add(
          model.name, "", "dense",
          {result("dense", model.dense, 64 * kib), result("16,0,4", model.dense + 0.01, 4 * kib),
           result("64,0,4", model.adapted + 0.01, 4 * kib), result("none,256,0", model.dense + 1, 5 * kib)});
      set();
      for (const auto& [suffix, pattern] : {std::pair{"-d16", "16,0,4"}, std::pair{"-d64", "64,0,4"}}) {
        runs.add(std::string(model.name) + suffix, model.name, pattern,
                 {result(pattern, model.adapted, 4 * kib)});
        set();
      }
    }
    return runs;
  };
  const auto verdicts_of = [](const Runs& runs) {
    auto of = runs.tradeoff();
    const auto [labels, pairs] = model_pairs(of);
    std::vector<std::string> verdicts;
    for (const auto& pair : pairs) {
      REQUIRE(pair.differences.size() == labels.size());
      if (labels.front() == "dense" && pair.missing.empty()) {
        const double difference = pair.second->before("dense")->loss - pair.first->before("dense")->loss;
        CHECK((std::isnan(difference) ? std::isnan(pair.differences[0]) : pair.differences[0] == difference));
      }
      verdicts.push_back(pair.kind == ModelPair::Kind::precisions
                             ? pair.verdict
                             : fmt::format("{} {:.4f}", to_string(pair.kind), pair.largest));
    }
    CHECK(nlohmann::json::parse(tradeoff_json(of))["pairs"].size() == pairs.size());
    return verdicts;
  };
  const auto compare = [&](const std::vector<Model>& models, bool drop_last = false) {
    auto runs = runs_of(models);
    if (drop_last) runs.runs.pop_back(), runs.jobs.pop_back();
    const auto of = runs.tradeoff();
    CHECK(model_pairs(of).labels == std::vector<std::string>{"dense", "D = 16, I = 4", "D = 64, I = 4",
                                                             "adapted, D = 16, I = 4",
                                                             "adapted, D = 64, I = 4"});
    return verdicts_of(runs);
  };
  using Verdicts = std::vector<std::string>;
  const Model bf16{"bf16", "\"bf16\"", "1", 4.1, 4.2}, seed2{"seed2", "\"bf16\"", "2", 4.103, 4.201},
      f32{"f32", "\"f32\"", "1", 4.1015, 4.2};
  CHECK(compare({bf16, seed2, f32}) == Verdicts{"seeds 0.0030", "accepted"});
  CHECK(compare({bf16, {"f32", "\"f32\"", "1", 4.1, 4.2025}, seed2}) ==
        Verdicts{"refused: above 0.002", "seeds 0.0030"});
  CHECK(compare({bf16, {"seed2", "\"bf16\"", "2", 4.101, 4.2}, {"f32", "\"f32\"", "1", 4.1, 4.2015}}) ==
        Verdicts{"seeds 0.0010", "refused: above the seeds' 0.0010"});
  CHECK(compare({bf16, {"f32", "\"f32\"", "1", 4.1, 4.2001}}) ==
        Verdicts{"no two complete seeds to compare with"});
  CHECK(compare({bf16, seed2, {"f32", "\"f32\"", "1", 4.1, 4.2}})[1].starts_with("no digit differs"));
  CHECK(compare({bf16, {"f32", "\"f32\"", "1", std::nan(""), 4.2}, seed2}).front() == "refused: above 0.002");
  CHECK(compare({bf16, seed2, {"f32", "\"f32\"", "1", 4.1, 4.2}}, true)[1] ==
        "not complete: adapted, D = 64, I = 4 is missing");
  CHECK(compare({bf16, {"f32", "\"f32\"", "1", 4.1, 4.2001}, seed2}, true) ==
        Verdicts{"no two complete seeds to compare with", "seeds 0.0030"});
  // A seed that diverged is no bound.
  CHECK(compare({bf16, f32, {"seed2", "\"bf16\"", "2", std::nan(""), 4.2}}).front() ==
        "no two complete seeds to compare with");
  // A job in micro-batches of another size says how far roundings alone go; the bound stays. No pair differs in two ways.
  const Model split{"split", "\"bf16\"", "1", 4.097, 4.2, "2"};
  CHECK(compare({bf16, {"f32", "\"f32\"", "1", 4.1, 4.2025}, split, seed2}) ==
        Verdicts{"refused: above 0.002 (roundings alone: 0.0030)", "roundings 0.0030", "seeds 0.0030",
                 "not complete: they also differ in data.micro_batch"});
  CHECK(compare({bf16, {"other", "\"f32\"", "2", 4.1, 4.2}}).empty());
  CHECK(compare({bf16, {"other", "\"f32\"", "1", 4.1, 4.2, "2"}}) ==
        Verdicts{"not complete: they also differ in data.micro_batch"});
  CHECK(compare({bf16, {"other", "\"bf16\"", "2", 4.1, 4.2, "2"}}).empty());
  // An older program wrote no micro-batch.
  CHECK(compare({bf16, seed2, {"f32", "\"f32\"", "1", 4.1015, 4.2, "-"}}) ==
        Verdicts{"seeds 0.0030", "accepted"});
  // A CPU computes in float32: of another device, no pair, of seeds neither.
  CHECK(compare({bf16, {"seed2", "\"bf16\"", "2", 4.1, 4.2, "4", "\"cpu\""}}).empty());
  CHECK(compare({bf16, {"split", "\"bf16\"", "1", 4.1, 4.2, "2", "\"cpu\""}}).empty());

  // What the rule asks for is named where nobody has it.
  const auto without = [&](const auto& drops) {
    Runs all = runs_of({bf16, f32}), runs;
    for (std::size_t r = 0; r < all.runs.size(); ++r) {
      if (drops(all.runs[r])) continue;
      runs.runs.push_back(all.runs[r]), runs.jobs.push_back(all.jobs[r]);
    }
    return verdicts_of(runs).front();
  };
  CHECK(without([](const auto& run) { return run.name.find("-d") != std::string::npos; }) ==
        "not complete: adapted, D = 16 is missing");
  CHECK(without([](const auto& run) { return run.name.ends_with("-d64"); }) ==
        "not complete: adapted, D = 64 is missing");
  Runs windows = runs_of({bf16, f32});
  for (auto& run : windows.runs)
    std::erase_if(run.evaluation->losses, [](const auto& of) { return of.pattern == "dense"; });
  CHECK(verdicts_of(windows).front() == "not complete: dense is missing");
  // A model without patterns has its one loss.
  Runs rnn;
  for (const auto& [name, precision, seed, loss] : {std::tuple{"bf16", "\"bf16\"", "1", 4.1},
                                                    {"f32", "\"f32\"", "1", 4.101},
                                                    {"seed2", "\"bf16\"", "2", 4.103}}) {
    rnn.add(name, "", "dense", {result("dense", loss, kib)});
    for (const auto& [key, value] : {std::pair{"job.precision", precision}, std::pair{"job.seed", seed},
                                     std::pair{"model.mixer", "{ kind = \"rnn\", memory = 4096 }"}})
      rnn.jobs.back().values.emplace_back(key, value);
  }
  CHECK(verdicts_of(rnn) == Verdicts{"accepted", "seeds 0.0030"});
  // What was made otherwise does not compare.
  Runs otherwise = runs_of({bf16, f32});
  otherwise.runs[3].evaluation->step = 8;
  CHECK(verdicts_of(otherwise).front() == "not complete: dense: evaluated after 10 and 8 steps");
  otherwise = runs_of({bf16, f32});
  otherwise.runs[0].evaluation->sequences = 64, otherwise.runs[3].evaluation->sequences = 345;
  CHECK(verdicts_of(otherwise).front() == "not complete: dense: evaluated on different text");
  otherwise = runs_of({bf16, f32});
  otherwise.jobs[4].values.back().second = "20";
  CHECK(verdicts_of(otherwise).front() ==
        "not complete: adapted, D = 16, I = 4: adaptations that differ in schedule.steps");
  // Of several adaptations those of one job are compared.
  const auto add_longer = [](Runs& runs, const char* from, double loss) {
    runs.add(std::string(from) + "-longer", from, "16,0,4", {result("16,0,4", loss, 4 * kib)});
    runs.jobs.back().values = runs.jobs[from == std::string("bf16") ? 1 : 4].values;
    runs.jobs.back().values.back().second = "20";
  };
  Runs several = runs_of({bf16, seed2, f32});
  add_longer(several, "bf16", 4.15);
  CHECK(verdicts_of(several)[1] == "accepted");
}

TEST_CASE("an adapted run goes to the model beside it where two were trained at one place") {
  const auto moved = [](bool apart) {
    Runs runs;
    for (const char* host : {"a", "b"}) {
      runs.add("ours", "", "dense", {result("dense", 4, kib), result("16,0,4", 4.1, kib)});
      runs.runs.back().directory = std::string("here/") + host + "/ours";
      runs.runs.back().name = host;
    }
    runs.add("ours-d16", "ours", "16,0,4", {result("16,0,4", 4.05, kib)});
    runs.runs.back().directory = apart ? "elsewhere/ours-d16" : "here/b/ours-d16";
    return runs;
  };
  const Runs runs = moved(false);
  const auto of = runs.tradeoff();
  CHECK(of.models[0].adapted.empty());
  CHECK(of.models[1].adapted.size() == 1);
  CHECK(fails_saying([&] { moved(true).tradeoff(); }, "elsewhere/ours-d16: was adapted from runs/ours",
                     "here/a/ours, here/b/ours"));
}

TEST_CASE("the picture has a line a model through its dilations, and a mark for each result") {
  const Runs runs = some();
  const auto svg = draw_tradeoff_chart(runs.tradeoff());
  CHECK(xml_error(svg).empty());
  CHECK(count(svg, "<circle ") == 3 + 1 + 1);  // ours: before, after, legend
  CHECK(count(svg, "fill=\"#ffffff\" stroke=\"#0072b2\"") == 1);
  for (const char* name : {">ours<", ">theirs<", ">rnn<", ">16,0,4<", "hollow: after adaptation"})
    CHECK(count(svg, name) == 1);
}

TEST_CASE("runs that cannot be set beside each other are named, with the way out") {
  const auto refused = [](const Runs& runs, auto... parts) {
    return fails_saying([&] { runs.tradeoff(); }, parts...);
  };
  Runs unevaluated = some();
  unevaluated.runs[1].evaluation.reset();
  CHECK(refused(unevaluated, "runs/theirs: has no evaluation", "ratplus eval runs/theirs"));
  Runs earlier = some();
  earlier.runs[0].evaluation->losses[0].cache_bytes = 0;
  CHECK(refused(earlier, "runs/ours: has no evaluation", "sizes of caches"));
  Runs shorter = some();
  shorter.runs[3].evaluation->sequence_length = 512;
  CHECK(refused(shorter, "runs/rnn: was evaluated in sequences of 512 tokens", "4096"));
  Runs orphan;
  orphan.add("d16", "ours", "16,0,4", {result("16,0,4", 4, kib)});
  CHECK(refused(orphan, "runs/d16: was adapted from runs/ours, which is not among the runs"));
  Runs other = some();
  other.runs[2].evaluation->losses.pop_back();
  CHECK(refused(other, "runs/ours-d16: was not evaluated under D = 16, I = 4"));
}

}  // namespace ratplus::report
