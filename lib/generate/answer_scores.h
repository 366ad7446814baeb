// Scores of answers beside their references, and their means with standard errors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::generate {

/// Of one answer, each from 0 to 1.
struct AnswerScores {
  /// The papers': the share of the references among the answer's parts between commas, white space around left aside.
  double reference = 0;
  /// RULER's string_match_all: the share of the references that the answer contains, ASCII letters of either case.
  double contained = 0;
  /// 1 where the parts between commas are the references, in their order; else 0.
  double whole = 0;
  /// qa_f1 and rouge_l (text_scores.h) with the reference for which each is best.
  double f1 = 0, rouge_l = 0;
};

/// Throws Error where there is no reference.
AnswerScores score_answer(std::string_view answer, const std::vector<std::string>& references);

/// A mean of scores in per cent, and its standard error: the deviation of the scores by n - 1, over the root of n; NaN for one.
struct MeanScore {
  double mean = 0, error = 0;
};
MeanScore mean_score(const std::vector<double>& scores);

struct ScoredAnswer {
  std::string task;
  nlohmann::ordered_json fields;  ///< of the line's "meta", by which answers are grouped
  AnswerScores scores;
  bool empty = false;  ///< an answer of white space alone
};

/// The answers of a file: lines {"text", "meta": {"outputs", "task", ...}} of `ratplus generate`, or {"pred", "outputs"} of
/// RULER's client, whose task is the file's name. LongBench calls its references "answers". Throws Error naming file and line, also
/// where an "id" (RULER's "index") comes again within a task: copies of an answer are not independent.
std::vector<ScoredAnswer> read_answers(const std::filesystem::path& file);

/// Groups of answers: by task, or by a field of "meta" ("keys"), or by its ranges: "distance:256,1024" is below 256, from 256
/// to 1023, and from 1024 on.
struct Grouping {
  std::string field;
  std::vector<double> edges;  ///< rising; empty: one group a value
};
/// Throws Error naming what is wrong.
Grouping parse_grouping(const std::string& text);

struct GroupScores {
  std::string name;
  std::int64_t answers = 0, empty = 0;
  MeanScore reference, contained, whole, f1, rouge_l;
};

/// Groups in rising order of numbers or edges, tasks in their first order. Where all tasks of one of RULER's rows are
/// there (niah_single_1 to 3: S, niah_multikey_1 to 3: MK, niah_multiquery and niah_multivalue: MQ/MV), and the grouping is
/// by task, rows S, MK and MQ/MV follow: means of the tasks' means. Throws Error where an answer lacks the field.
std::vector<GroupScores> group_scores(const std::vector<ScoredAnswer>& answers, const Grouping& grouping);

}  // namespace ratplus::generate
