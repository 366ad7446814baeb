#include "lib/report/table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "lib/report/format.h"
#include "lib/report/measured_text.h"
#include "lib/report/quantity.h"
#include "lib/report/text_columns.h"
#include "lib/report/warnings.h"

namespace ratplus::report {
namespace {

using Row = std::vector<std::string>;

std::string perplexity_cell(std::optional<double> loss) {
  return loss && std::isfinite(*loss) ? fmt::format("{:.2f}", std::exp(*loss)) : "-";
}

/// The pattern that a plain run was trained with: its only update.
std::string trained_pattern(const RunMetrics& run) {
  if (!run.last_step || run.last_step->losses.size() != 1) {
    fail(
        "{}: no run of the plain recipe, so it was not adapted to a pattern; give the pretrained run first "
        "and then "
        "the runs adapted from it",
        run.directory.string());
  }
  return run.last_step->losses.front().pattern;
}

double required_loss(const RunMetrics& run, const std::string& pattern) {
  const auto loss = loss_of(run.final_result(), pattern);
  if (!loss) {
    fail(
        "{}: has no validation under {}; put the pattern into log.validation_patterns of its job, or "
        "evaluate it: "
        "ratplus eval {} --pattern '{}' --json {}",
        run.directory.string(), pattern_label(pattern), run.directory.string(), pattern,
        (run.directory / "evaluation.json").string());
  }
  return *loss;
}

}  // namespace

std::string format_table(const std::vector<Row>& rows, std::size_t indent) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line(row.empty() ? 0 : indent, ' ');
    for (std::size_t i = 0; i < row.size(); ++i)
      line += i == 0 ? padded_right(row[i], widths[i]) : "   " + padded_left(row[i], widths[i]);
    text += line.erase(line.find_last_not_of(' ') + 1) + '\n';
  }
  return text;
}

std::string markdown_cell(std::string_view text) {
  std::string cell;
  for (const char c : text) {
    if (c == '|' || c == '\\') cell += '\\';
    cell += static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? ' ' : c;
  }
  return cell;
}

namespace {

std::size_t width_of(const std::string& table) {
  return columns_of(std::string_view(table).substr(0, table.find('\n')));
}

/// Rows and columns change places where the table is wider than a terminal of 80 columns, and is less so the other way
/// round.
std::string narrow_table(std::vector<Row> rows) {
  auto table = format_table(rows);
  if (width_of(table) <= 80) return table;
  std::vector<Row> turned(rows.front().size());
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) turned[i].push_back(row[i]);
  }
  turned.front().front() = "pattern";
  auto other = format_table(turned);
  return width_of(other) < width_of(table) ? other : table;
}

/// The table below its title, and below a note where results in it do not compare.
std::string titled(const std::vector<const RunMetrics*>& runs, const std::string& table) {
  const auto note = unlike_results(runs);
  return (note.empty() ? "" : note + "\n") + perplexity_title(runs) + "\n" + table;
}

std::vector<const RunMetrics*> pointers_to(const std::vector<RunMetrics>& runs) {
  std::vector<const RunMetrics*> pointers;
  for (const auto& run : runs) pointers.push_back(&run);
  return pointers;
}

/// A difference of lengths would be taken for a gain by adaptation.
void require_one_length(const std::vector<const RunMetrics*>& runs) {
  const RunMetrics* first = nullptr;
  for (const RunMetrics* run : runs) {
    const Measurement* result = run->final_result();
    if (result == nullptr || result->sequence_length == 0) continue;
    if (first == nullptr) first = run;
    const auto other = first->final_result()->sequence_length;
    if (result->sequence_length != other)
      fail(
          "{}: was measured in sequences of {} tokens, {} of {}; evaluate both alike (ratplus eval "
          "--sequence-length, --json RUN/evaluation.json)",
          run->directory.string(), result->sequence_length, first->directory.string(), other);
  }
}

}  // namespace

std::string final_table(const RunMetrics& run) {
  const auto end = describe_end(run);
  auto state = end.empty() ? "" : fmt::format("{}: {}\n", run.name, end);
  if (!run.not_its_evaluation.empty()) state += fmt::format("note: {}\n", run.not_its_evaluation);
  const Measurement* result = run.final_result();
  if (result == nullptr) return fmt::format("{}{}: no validation yet\n", state, run.name);
  std::vector<Row> rows = {{"pattern", "loss", "perplexity"}};
  const bool labelled = std::ranges::any_of(
      result->losses, [](const PatternLoss& entry) { return entry.accuracy.has_value(); });
  if (labelled) rows[0].insert(rows[0].end(), {"token accuracy", "completion accuracy"});
  for (const PatternLoss& of : result->losses) {
    rows.push_back({pattern_label(of.pattern), format_value(Unit::nats, of.loss), perplexity_cell(of.loss)});
    if (!of.accuracy) continue;
    rows.back().push_back(format_fixed(of.accuracy->token, 4));
    rows.back().push_back(format_fixed(of.accuracy->completion, 4));
  }
  const char* kind =
      result == (run.evaluation ? &*run.evaluation : nullptr) ? "evaluation" : "last validation";
  const char* split = result->split == "train" ? " on the training split" : "";
  return fmt::format("{}{}: {}{}, step {}\n{}", state, run.name, kind, split, result->step,
                     format_table(rows));
}

std::string joint_table(const std::vector<RunMetrics>& runs) {
  std::vector<std::string> patterns;
  for (const auto& run : runs) {
    if (run.final_result() == nullptr) continue;
    for (const auto& loss : run.final_result()->losses) {
      if (std::ranges::find(patterns, loss.pattern) == patterns.end()) patterns.push_back(loss.pattern);
    }
  }
  std::vector<Row> rows = {{"run"}};
  for (const auto& pattern : patterns) rows.front().push_back(pattern_label(pattern));
  for (const auto& run : runs) {
    rows.push_back({run.name});
    for (const auto& pattern : patterns)
      rows.back().push_back(perplexity_cell(loss_of(run.final_result(), pattern)));
  }
  return titled(pointers_to(runs), narrow_table(rows));
}

std::string adaptation_table(const RunMetrics& pretrained, const std::vector<RunMetrics>& adapted) {
  std::vector<const RunMetrics*> all = {&pretrained};
  for (const auto& run : adapted) all.push_back(&run);
  require_one_length(all);
  const double dense = required_loss(pretrained, "dense");
  std::vector<Row> rows = {{"", "dense"},
                           {"before adaptation", perplexity_cell(dense)},
                           {"after adaptation", perplexity_cell(dense)}};
  for (const auto& run : adapted) {
    const std::string pattern = trained_pattern(run);
    rows[0].push_back(pattern_label(pattern));
    rows[1].push_back(perplexity_cell(required_loss(pretrained, pattern)));
    rows[2].push_back(perplexity_cell(required_loss(run, pattern)));
  }
  std::string notes;
  for (const RunMetrics* run : all) {
    if (!run->not_its_evaluation.empty()) notes += fmt::format("note: {}\n", run->not_its_evaluation);
  }
  return notes + titled(all, format_table(rows));
}

}  // namespace ratplus::report
