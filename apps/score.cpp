// ratplus score: answers beside their references.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/command_line.h"
#include "apps/output_file.h"
#include "base/error.h"
#include "lib/generate/answer_scores.h"
#include "lib/report/table.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;
using generate::GroupScores;
using generate::MeanScore;

constexpr const char* score_help =
    R"(usage: ratplus score [NAME=]ANSWERS... [--by FIELD[:EDGES] ...] [--score NAME ...] [--json FILE]

Scores answers to the tasks of `ratplus needles`, RULER's, or questions with free answers, in per cent with standard errors,
as a table in Markdown with a row for each ANSWERS, and the numbers of answers: a file that `ratplus generate --input` has written (references are
"outputs" or "answers" of its "meta"), a file pred/TASK.jsonl of RULER's client, or a directory of such files. NAME is the
row's; default: the path.

scores:
  reference   as the papers': the share of references among the answer's parts between commas, exactly
  ruler       as RULER's string_match_all: the share of references that the answer contains, in either case
  whole       the share of answers that are the references, all of them in their order, and nothing else
  f1          as LongBench's qa_f1_score: F1 of the words, with the reference for which it is best
  rouge-l     as LongBench's rouge_score: F of ROUGE-L, with the reference for which it is best
S, MK and MQ/MV are means of RULER's three single, three multikey, and two other tasks.

)";

constexpr const char* score_help_end = R"(
examples:
  ratplus score answers.jsonl
  ratplus score dense=dense.jsonl "D = 16=d16.jsonl" --by task --by distance:64,256,1024 --json scores.json
  ratplus score narrativeqa.jsonl --score f1
)";

struct File {
  std::string name;
  std::vector<fs::path> paths;
  std::vector<generate::ScoredAnswer> answers;
};

struct Score {
  const char* name;
  MeanScore GroupScores::*value;
};
constexpr Score all_scores[] = {{"reference", &GroupScores::reference},
                                {"ruler", &GroupScores::contained},
                                {"whole", &GroupScores::whole},
                                {"f1", &GroupScores::f1},
                                {"rouge-l", &GroupScores::rouge_l}};
constexpr std::size_t retrieval_scores = 3;  // those by default

struct ScoreArguments {
  std::vector<std::string> inputs;
  std::vector<generate::Grouping> groupings;
  std::vector<Score> scores;
  std::string json;
};

std::optional<ScoreArguments> parse_score(const Arguments& args) {
  ScoreArguments parsed;
  std::vector<std::string> by, scores;
  po::options_description options("options", 110, 70);
  auto add = options.add_options();
  add("by", po::value(&by)->composing()->value_name("FIELD[:E,E]"),
      "a table by task (default), or by a number in the answers' meta, such as keys, depth (per cent) or "
      "distance (tokens), or "
      "by its ranges between rising edges; may be given again");
  add("score", po::value(&scores)->composing()->value_name("NAME"),
      "reference, ruler, whole, f1 or rouge-l; may be given again; default: the first three");
  add("json", po::value(&parsed.json)->value_name("FILE"), "write the results there too");
  const Positional inputs{"answers", -1, po::value(&parsed.inputs), "a file of answers is missing",
                          "ANSWERS.jsonl"};
  if (!parse_command_line(args, options, inputs, {score_help, score_help_end})) return std::nullopt;
  as_usage_error([&] {
    for (const std::string& text : by) parsed.groupings.push_back(generate::parse_grouping(text));
    for (const std::string& name : scores) {
      const auto* found = std::ranges::find(all_scores, name, &Score::name);
      if (found == std::end(all_scores))
        fail("--score {}: there are reference, ruler, whole, f1 and rouge-l", name);
      parsed.scores.push_back(*found);
    }
  });
  if (parsed.groupings.empty()) parsed.groupings.push_back({.field = "task", .edges = {}});
  if (parsed.scores.empty()) parsed.scores.assign(all_scores, all_scores + retrieval_scores);
  return parsed;
}

File find_input(const std::string& input) {
  // A path may hold "=", a name too: "D = 16=d16.jsonl".
  std::string name = input;
  fs::path path = input;
  if (const auto equals = input.rfind('='); equals != std::string::npos && !fs::exists(path)) {
    name = input.substr(0, equals);
    path = input.substr(equals + 1);
  }
  std::vector<fs::path> files{path};
  if (fs::is_directory(path)) {
    files.clear();
    for (const auto& entry : fs::directory_iterator(path)) {
      const auto& file = entry.path();
      if (entry.is_regular_file() && file.extension() == ".jsonl" &&
          !file.filename().string().starts_with('.'))
        files.push_back(file);
    }
    if (files.empty()) fail("{}: holds no answers (.jsonl)", path.string());
    std::ranges::sort(files);
  }
  return {.name = name, .paths = files, .answers = {}};
}

void read_input(File& file) {
  for (const fs::path& path : file.paths) {
    auto answers = generate::read_answers(path);
    std::ranges::move(answers, std::back_inserter(file.answers));
  }
}

/// The groups that any file has, in the order of their first appearance.
std::vector<std::string> group_names(const std::vector<std::vector<GroupScores>>& files) {
  std::vector<std::string> names;
  for (const auto& file : files) {
    for (const GroupScores& group : file) {
      if (std::ranges::find(names, group.name) == names.end()) names.push_back(group.name);
    }
  }
  return names;
}

/// The group's number of answers where every file that has it has as many; else 0.
std::int64_t shared_count(const std::string& name, const std::vector<std::vector<GroupScores>>& groups) {
  std::int64_t count = 0;
  for (const auto& file : groups) {
    const auto found = std::ranges::find(file, name, &GroupScores::name);
    if (found == file.end()) continue;
    if (count > 0 && found->answers != count) return 0;
    count = found->answers;
  }
  return count;
}

std::string score_cell(const MeanScore& mean) {
  return fmt::format("{:.1f} ± {}", mean.mean,
                     std::isfinite(mean.error) ? fmt::format("{:.1f}", mean.error) : "-");
}

/// Numbers of answers stand in the head, or where the files differ in the cells.
void print_table(const generate::Grouping& grouping, const Score& score, const std::vector<File>& files,
                 const std::vector<std::vector<GroupScores>>& groups) {
  const auto names = group_names(groups);
  fmt::print("| {} % by {} |", score.name, report::markdown_cell(grouping.field));
  for (const std::string& name : names) {
    const auto count = shared_count(name, groups);
    fmt::print(" {}{} |", report::markdown_cell(name), count > 0 ? fmt::format(", n = {}", count) : "");
  }
  fmt::print("\n|---|");
  for (std::size_t i = 0; i < names.size(); ++i) fmt::print("---:|");
  fmt::print("\n");
  for (std::size_t f = 0; f < files.size(); ++f) {
    fmt::print("| {} |", report::markdown_cell(files[f].name));
    for (const std::string& name : names) {
      const auto found = std::ranges::find(groups[f], name, &GroupScores::name);
      if (found == groups[f].end()) {
        fmt::print(" - |");
      } else {
        fmt::print(" {}{} |", score_cell((*found).*score.value),
                   shared_count(name, groups) > 0 ? "" : fmt::format(", n = {}", found->answers));
      }
    }
    fmt::print("\n");
  }
  fmt::print("\n");
}

nlohmann::ordered_json to_json(const GroupScores& group) {
  nlohmann::ordered_json json{{"name", group.name}, {"answers", group.answers}, {"empty", group.empty}};
  for (const Score& score : all_scores) {
    json[score.name] = (group.*score.value).mean;
    json[fmt::format("{}_error", score.name)] = (group.*score.value).error;
  }
  return json;
}

}  // namespace

int score_command(const Arguments& args) {
  const auto parsed = parse_score(args);
  if (!parsed) return 0;
  if (launched() && !first_of_job()) return 0;  // one process does it
  std::vector<File> files;
  InputPaths read;
  for (const std::string& input : parsed->inputs) {
    files.push_back(find_input(input));
    read.insert(read.end(), files.back().paths.begin(), files.back().paths.end());
  }
  check_json_output(parsed->json, read);
  for (File& file : files) read_input(file);
  nlohmann::ordered_json json;
  for (const File& file : files)
    json["answers"].push_back({{"name", file.name}, {"tables", nlohmann::ordered_json::array()}});
  for (const auto& grouping : parsed->groupings) {
    std::vector<std::vector<GroupScores>> groups;
    for (std::size_t i = 0; i < files.size(); ++i) {
      groups.push_back(generate::group_scores(files[i].answers, grouping));
      nlohmann::ordered_json table{{"by", grouping.field}, {"groups", nlohmann::ordered_json::array()}};
      for (const GroupScores& group : groups.back()) table["groups"].push_back(to_json(group));
      json["answers"][i]["tables"].push_back(std::move(table));
    }
    for (const Score& score : parsed->scores) print_table(grouping, score, files, groups);
  }
  write_json_output(parsed->json, json);
  return 0;
}

}  // namespace ratplus::apps
