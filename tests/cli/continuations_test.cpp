// ratplus eval --continuations: sums of the logits of another path, from any number of ranks, and what is said of bad lines.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/cli/learnt_model.h"
#include "tests/cli/program.h"

using namespace ratplus;
using test::contains;
using test::learnt_run;
using test::likeliest;
using test::log_probabilities;
using test::output_of;
using test::write_lines;
using Json = nlohmann::json;
using Tokens = std::vector<std::int32_t>;

TEST_CASE(
    "eval --continuations: sums and greedy flags of the logits of an evaluation, from any number of ranks") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const data::Tokenizer tokenizer(test::Playground::get().data / "tokenizer.model");
  std::vector<Json> lines;
  std::vector<std::pair<Tokens, std::size_t>> expected;  // tokens, and the first that is scored
  const auto encoded = [&](const std::string& text) {
    Tokens tokens;
    tokenizer.encode(text, tokens);
    return tokens;
  };
  for (const auto& [context, kept] : std::vector<std::pair<std::string, std::string>>{{"ba kelo", "ba kelo"},
                                                                                      {"ba kelo ", "ba kelo"},
                                                                                      {"mi. \n", "mi."},
                                                                                      {"", ""},
                                                                                      {"so\u00a0", "so"}}) {
    for (const std::string continuation : {"ba", " lo ra", ".\n"}) {
      lines.push_back({{"context", context}, {"continuation", continuation}, {"meta", lines.size()}});
      auto whole = encoded(context + continuation);
      auto first = kept.empty() ? 0 : encoded(kept).size();
      if (first == 0) whole.insert(whole.begin(), tokenizer.end_of_text()), first = 1;
      expected.emplace_back(whole, first);
    }
  }
  lines.push_back({{"context_tokens", {259}}, {"continuation_tokens", {394}}, {"id", "tokens"}});
  expected.emplace_back(Tokens{259, 394}, 1);
  lines.push_back({{"context_tokens", Json::array()}, {"continuation_tokens", {9, 8, 7}}});
  expected.emplace_back(Tokens{tokenizer.end_of_text(), 9, 8, 7}, 1);
  write_lines(path("in.jsonl"), lines);

  const auto eval = fmt::format("eval {} --continuations {} --pattern 8,0,2", learnt_run(), path("in.jsonl"));
  const auto printed = output_of(eval);
  std::istringstream in(printed);
  double sum = 0;
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CAPTURE(json_dump(lines[i]));
    std::string line;
    REQUIRE(static_cast<bool>(std::getline(in, line)));
    const auto result = Json::parse(line);
    const auto& [sequence, first] = expected[i];
    const auto rows = log_probabilities(sequence, "8,0,2");
    double log_likelihood = 0;
    bool greedy = true;
    for (std::size_t t = first; t < sequence.size(); ++t) {
      log_likelihood += rows[t - 1][static_cast<std::size_t>(sequence[t])];
      greedy = greedy && likeliest(rows[t - 1]) == sequence[t];
    }
    CHECK(result["log_likelihood"].get<double>() == doctest::Approx(log_likelihood).epsilon(1e-5));
    CHECK(result["greedy"] == greedy);
    CHECK(result["tokens"] == sequence.size() - first);
    CHECK(result["id"] == lines[i].value("id", Json(i + 1)));
    CHECK(result.contains("characters") == lines[i].contains("context"));
    if (lines[i].contains("context")) {
      const auto text = lines[i]["continuation"].get<std::string>();
      CHECK(result["characters"] == text.size() - (text[0] == ' ' ? 1 : 0));
    }
    sum += log_likelihood;
    tokens += sequence.size() - first;
  }
  for (const int ranks : {0, 1, 3}) {
    const auto result = test::ratplus(fmt::format("{} --output {} --force", eval, path("out.jsonl")), ranks);
    CAPTURE(result.output);
    CHECK(result.status == 0);
    CHECK(read_whole_file(path("out.jsonl")) == printed);
    const auto head = fmt::format("{} continuations, {} tokens: log-likelihood ", lines.size(), tokens);
    const auto at = result.output.find(head);
    REQUIRE(at != std::string::npos);
    CHECK(std::stod(result.output.substr(at + head.size())) == doctest::Approx(sum).epsilon(1e-5));
  }

  Tokens long_context(40, 5);
  const auto too_long = [&](const std::string& options) {
    write_lines(path("long.jsonl"), {{{"context_tokens", long_context}, {"continuation_tokens", {9, 8}}}});
    return test::ratplus(
        fmt::format("eval {} --continuations {} {}", learnt_run(), path("long.jsonl"), options));
  };
  const auto refused = too_long("");
  CHECK(refused.status == 1);
  CHECK(contains(
      refused.output,
      "line 1: a context of 40 tokens and a continuation of 2 are 42, and a sequence has at most 32"));
  for (std::size_t i = 0; i < long_context.size(); ++i) long_context[i] = static_cast<std::int32_t>(5 + i);
  for (const std::string cut : {"left", "middle"}) {
    Tokens kept(long_context.end() - 30, long_context.end());
    if (cut == "middle") std::copy_n(long_context.begin(), 15, kept.begin());
    kept.insert(kept.end(), {9, 8});
    const auto rows = log_probabilities(kept, "dense");
    const auto result = output_of(fmt::format("eval {} --continuations {} --cut {}", learnt_run(),
                                              (too_long("--cut " + cut), path("long.jsonl")), cut));
    CHECK(Json::parse(result)["log_likelihood"].get<double>() ==
          doctest::Approx(rows[29][9] + rows[30][8]).epsilon(1e-5));
  }

  for (const auto& [line, message] : std::vector<std::pair<std::string, std::string>>{
           {R"({"context": "a"})", "line 1: give \"context\" and \"continuation\", or"},
           {R"({"context": "a", "continuation": ""})", "line 1: the continuation has no token of its own"},
           {R"({"context": "a", "continuation": 5})",
            "line 1: \"continuation\" is a JSON number, not a text"},
           {R"({"context": "a", "continuation": "b", "choices": 5})",
            "line 1: there is no field \"choices\""},
           {R"({"context_tokens": [400], "continuation_tokens": [1]})", "line 1: token 400 is outside"}}) {
    write_whole_file(path("bad.jsonl"), line + "\n");
    const auto result =
        test::ratplus(fmt::format("eval {} --continuations {}", learnt_run(), path("bad.jsonl")));
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(contains(result.output, message));
  }
  CHECK(contains(test::ratplus("eval " + learnt_run() + " --output o").output,
                 "--output goes with --continuations"));
  CHECK(contains(test::ratplus(eval + " --data d").output, "--data does not go with --continuations"));
}

TEST_CASE("eval --continuations: log_likelihood / characters picks as lm-evaluation-harness's acc_norm") {
  const test::ScratchDirectory scratch;
  const auto path = (scratch / "in.jsonl").string();
  std::vector<std::string> choices = {"ba kelo mi", "lo ra ba", "mi. ke lo", "ke lo ra mi ba",
                                      "\u00e9t\u00e9  "};
  for (const std::string first : {"ba", "ke", "lo", "mi", "nu", "ra"}) {
    choices.push_back(first);
    for (const char* second : {"ba", "lo", "ra"}) choices.push_back(first + second);
  }
  std::vector<Json> lines;
  for (const auto& choice : choices)
    lines.push_back({{"context", "ba kelo"}, {"continuation", " " + choice}});
  lines.push_back({{"context", "ba"}, {"continuation", "\u00a0\n ba"}});
  lines.push_back({{"context", "ba"}, {"continuation", " \n "}});
  write_lines(path, lines);
  std::istringstream in(output_of(fmt::format("eval {} --continuations {}", learnt_run(), path)));
  std::vector<double> sums, characters;
  for (std::string line; std::getline(in, line);) {
    const auto result = Json::parse(line);
    sums.push_back(result["log_likelihood"]);
    characters.push_back(result["characters"]);
  }
  REQUIRE(sums.size() == lines.size());
  CHECK(characters[choices.size()] == 2);
  CHECK(characters[choices.size() + 1] == 0);
  CHECK(characters[4] == 5);
  // Of two choices the harness takes the one of the larger sum / len(choice). Some picks change if the blank counts, too.
  int changed = 0;
  const auto length = [&](std::size_t i) { return i == 4 ? 5.0 : static_cast<double>(choices[i].size()); };
  for (std::size_t a = 0; a < choices.size(); ++a) {
    for (std::size_t b = a + 1; b < choices.size(); ++b) {
      const bool first = sums[a] / length(a) >= sums[b] / length(b);
      CHECK((sums[a] / characters[a] >= sums[b] / characters[b]) == first);
      if ((sums[a] / (length(a) + 1) >= sums[b] / (length(b) + 1)) != first) ++changed;
    }
  }
  CHECK(changed > 0);
}
