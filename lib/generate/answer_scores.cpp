#include "lib/generate/answer_scores.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/json_dump.h"
#include "lib/generate/line_work.h"
#include "lib/generate/text_scores.h"

namespace ratplus::generate {
namespace {

using Json = nlohmann::ordered_json;

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f');  // as Python's str.strip
}

std::string_view stripped(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> parts_of(std::string_view text) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto comma = text.find(',');
    parts.push_back(stripped(text.substr(0, comma)));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

std::string lower(std::string_view text) {
  std::string all(text);
  for (char& c : all) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return all;
}

struct Sums {
  std::vector<double> reference, contained, whole, f1, rouge_l;
  std::int64_t empty = 0;

  void add(const ScoredAnswer& answer) {
    reference.push_back(answer.scores.reference);
    contained.push_back(answer.scores.contained);
    whole.push_back(answer.scores.whole);
    f1.push_back(answer.scores.f1);
    rouge_l.push_back(answer.scores.rouge_l);
    if (answer.empty) ++empty;
  }
  GroupScores result(std::string name) const {
    return {std::move(name),       std::ssize(reference), empty,          mean_score(reference),
            mean_score(contained), mean_score(whole),     mean_score(f1), mean_score(rouge_l)};
  }
};

/// The mean of tasks' means, whose errors are independent.
MeanScore mean_of(const std::vector<const GroupScores*>& groups, MeanScore GroupScores::*score) {
  MeanScore mean;
  for (const GroupScores* group : groups) {
    mean.mean += (group->*score).mean / double(groups.size());
    mean.error += (group->*score).error * (group->*score).error;
  }
  mean.error = std::sqrt(mean.error) / double(groups.size());
  return mean;
}

void add_summary(std::vector<GroupScores>& groups, const char* name, const std::vector<std::string>& tasks) {
  std::vector<const GroupScores*> found;
  GroupScores row;
  row.name = name;
  for (const std::string& task : tasks) {
    const auto group = std::ranges::find(groups, task, &GroupScores::name);
    if (group == groups.end()) return;
    found.push_back(&*group);
    row.answers += group->answers;
    row.empty += group->empty;
  }
  for (const auto score : {&GroupScores::reference, &GroupScores::contained, &GroupScores::whole,
                           &GroupScores::f1, &GroupScores::rouge_l})
    row.*score = mean_of(found, score);
  groups.push_back(row);
}

std::vector<std::string> texts_of(const Json& json, const std::string& where) {
  const char* key = json.contains("outputs") ? "outputs" : "answers";
  if (!json.contains(key) || !json[key].is_array() || json[key].empty())
    fail(
        "{}: has no references; lines of `ratplus needles` have them as meta.outputs, those of RULER as "
        "outputs, those of LongBench as answers",
        where);
  std::vector<std::string> texts;
  for (const Json& text : json[key]) {
    if (!text.is_string()) fail("{}: {} holds {}, which is no text", where, key, json_dump(text));
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

double number_of(const ScoredAnswer& answer, const std::string& field) {
  if (!answer.fields.contains(field) || !answer.fields[field].is_number())
    fail("--by {}: an answer to {} has no number \"{}\" in its meta", field, answer.task, field);
  return answer.fields[field].get<double>();
}

}  // namespace

AnswerScores score_answer(std::string_view answer, const std::vector<std::string>& references) {
  if (references.empty()) fail("an answer without references has no score");
  const auto parts = parts_of(answer);
  const std::string text = lower(answer);
  AnswerScores scores;
  for (const std::string& reference : references) {
    if (std::ranges::find(parts, std::string_view(reference)) != parts.end()) scores.reference += 1;
    if (text.find(lower(reference)) != std::string::npos) scores.contained += 1;
    scores.f1 = std::max(scores.f1, qa_f1(answer, reference));
    scores.rouge_l = std::max(scores.rouge_l, rouge_l(answer, reference));
  }
  scores.reference /= double(references.size());
  scores.contained /= double(references.size());
  scores.whole = std::ranges::equal(parts, references) ? 1 : 0;
  return scores;
}

MeanScore mean_score(const std::vector<double>& scores) {
  if (scores.empty()) return {};
  const auto n = double(scores.size());
  double sum = 0, squares = 0;
  for (const double score : scores) sum += score;
  const double mean = sum / n;
  for (const double score : scores) squares += (score - mean) * (score - mean);
  return {100 * mean,
          n > 1 ? 100 * std::sqrt(squares / (n - 1) / n) : std::numeric_limits<double>::quiet_NaN()};
}

std::vector<ScoredAnswer> read_answers(const std::filesystem::path& file) {
  const InputLines lines(file);
  std::vector<ScoredAnswer> answers;
  std::map<std::pair<std::string, std::string>, std::size_t> answered;  // lines, by task and id
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string where = lines.where(i);
    const Json json = lines.object(i);
    const bool of_ruler = json.contains("pred");
    const char* key = of_ruler ? "pred" : "text";
    if (!json.contains(key) || !json[key].is_string()) {
      fail(
          "{}: has no text \"text\" (as of `ratplus generate`, one answer a line) nor \"pred\" (as of "
          "RULER's client)",
          where);
    }
    ScoredAnswer answer;
    answer.fields = of_ruler ? json : json.value("meta", Json::object());
    if (!answer.fields.is_object()) fail("{}: \"meta\" is no object", where);
    const auto references = texts_of(answer.fields, where);
    const auto& text = json[key].get_ref<const std::string&>();
    answer.scores = score_answer(text, references);
    answer.empty = stripped(text).empty();
    answer.task = answer.fields.contains("task") && answer.fields["task"].is_string()
                      ? answer.fields["task"].get<std::string>()
                      : file.stem().string();
    // "index" is the id of RULER's client.
    if (const char* id = of_ruler ? "index" : "id"; json.contains(id)) {
      const auto [first, is_new] = answered.try_emplace({answer.task, json_dump(json[id])}, i);
      if (!is_new)
        fail(
            "{}: answers {} {} of {} again, as line {}; an answer counts once: remove one of them, or give "
            "files of several models, lengths or seeds apart",
            where, id, first->first.second, answer.task, lines.number(first->second));
    }
    for (const char* large : {"input", "outputs", "answers", "pred"}) answer.fields.erase(large);
    answers.push_back(std::move(answer));
  }
  return answers;
}

Grouping parse_grouping(const std::string& text) {
  const auto colon = text.find(':');
  Grouping grouping{.field = text.substr(0, colon), .edges = {}};
  if (grouping.field.empty()) fail("--by \"{}\": names no field", text);
  if (colon == std::string::npos) return grouping;
  const auto numbers = std::string_view(text).substr(colon + 1);
  for (const std::string_view part : parts_of(numbers)) {
    double edge = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), edge);
    if (read.ec != std::errc{} || read.ptr != part.data() + part.size() || !std::isfinite(edge) ||
        (!grouping.edges.empty() && edge <= grouping.edges.back()))
      fail("--by {}: \"{}\" is no rising list of numbers", text, numbers);
    grouping.edges.push_back(edge);
  }
  return grouping;
}

std::vector<GroupScores> group_scores(const std::vector<ScoredAnswer>& answers, const Grouping& grouping) {
  std::vector<GroupScores> groups;
  if (grouping.field == "task") {
    std::vector<std::pair<std::string, Sums>> tasks;
    for (const ScoredAnswer& answer : answers) {
      auto found = std::ranges::find(
          tasks, answer.task, [](const auto& task) -> const auto& { return task.first; });
      if (found == tasks.end()) found = tasks.insert(tasks.end(), {answer.task, {}});
      found->second.add(answer);
    }
    for (const auto& [name, sums] : tasks) groups.push_back(sums.result(name));
    add_summary(groups, "S", {"niah_single_1", "niah_single_2", "niah_single_3"});
    add_summary(groups, "MK", {"niah_multikey_1", "niah_multikey_2", "niah_multikey_3"});
    add_summary(groups, "MQ/MV", {"niah_multiquery", "niah_multivalue"});
    return groups;
  }
  std::map<double, Sums> by_number;
  const auto& edges = grouping.edges;
  for (const ScoredAnswer& answer : answers) {
    const double value = number_of(answer, grouping.field);
    const auto range = std::ranges::upper_bound(edges, value) - edges.begin();
    by_number[edges.empty() ? value : double(range)].add(answer);
  }
  for (const auto& [number, sums] : by_number) {
    if (edges.empty()) {
      groups.push_back(sums.result(fmt::format("{}", number)));
      continue;
    }
    const auto range = static_cast<std::size_t>(number);
    groups.push_back(sums.result(range == 0 ? fmt::format("below {}", edges.front())
                                 : range == edges.size()
                                     ? fmt::format("{} and more", edges.back())
                                     : fmt::format("{} to {}", edges[range - 1], edges[range])));
  }
  return groups;
}

}  // namespace ratplus::generate
