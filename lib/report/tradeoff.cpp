#include "lib/report/tradeoff.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_dump.h"
#include "base/json_path.h"
#include "kernels/pattern.h"
#include "lib/report/format.h"
#include "lib/report/measured_text.h"
#include "lib/report/quantity.h"
#include "lib/report/svg.h"
#include "lib/report/table.h"

namespace ratplus::report {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Rows = std::vector<std::vector<std::string>>;

const Measurement& evaluation_of(const RunMetrics& run) {
  const Measurement* result = run.final_result();
  const bool sized = result != nullptr && !result->losses.empty() &&
                     std::ranges::all_of(result->losses, [](const auto& of) { return of.cache_bytes > 0; });
  if (!sized) {
    fail(
        "{0}: has no evaluation of its last step with the sizes of caches; evaluate it: ratplus eval {0} "
        "--pattern dense 16,0,4 64,0,4 --json {1}{2}",
        run.directory.string(), (run.directory / "evaluation.json").string(),
        run.not_its_evaluation.empty() ? "" : fmt::format(" ({})", run.not_its_evaluation));
  }
  return *result;
}

/// Whether `path` is a run's directory, or in it.
bool leads_to(const fs::path& path, const fs::path& directory) {
  const auto rest = path.lexically_normal().lexically_relative(directory.lexically_normal());
  return !rest.empty() && *rest.begin() != "..";
}

/// The run that a job's job.from leads to: its directory or a checkpoint in it, as the job names it, wherever the directories
/// were moved since. Of several that were trained at one place (on two hosts, say), the one that lies to this run as job.from
/// to job.directory. Throws Error where that is not one run either.
const RunMetrics* origin_of(const RunMetrics& run, const JobSettings& job,
                            const std::vector<RunMetrics>& runs, const std::vector<JobSettings>& jobs) {
  const fs::path from = unquoted(job.value_of("job.from"));
  const fs::path beside =
      run.directory / from.lexically_relative(fs::path(unquoted(job.value_of("job.directory"))));
  std::vector<const RunMetrics*> found, near;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (&runs[r] == &run) continue;
    if (leads_to(from, runs[r].directory)) return &runs[r];
    if (!leads_to(from, unquoted(jobs[r].value_of("job.directory")))) continue;
    found.push_back(&runs[r]);
    if (leads_to(beside, runs[r].directory)) near.push_back(&runs[r]);
  }
  const auto& origins = found.size() > 1 ? near : found;
  if (origins.size() == 1) return origins.front();
  if (found.empty()) return nullptr;
  fail(
      "{}: was adapted from {}, where several of the runs were trained ({}, {}); give this run and that one "
      "alone",
      run.directory.string(), from.string(), found[0]->directory.string(), found[1]->directory.string());
}

bool is_adapted(const JobSettings& job) {
  return unquoted(job.value_of("job.kind")) == "adapt";
}

std::string trained_pattern(const RunMetrics& run) {
  if (!run.last_step || run.last_step->losses.size() != 1)
    fail("{}: was adapted by another recipe than the plain one, so it has no single pattern",
         run.directory.string());
  return run.last_step->losses.front().pattern;
}

std::string text_of(const RunMetrics& run) {
  const auto& evaluation = evaluation_of(run);
  const auto sequences =
      evaluation.sequences > 0 ? fmt::format("{} sequences of ", evaluation.sequences) : "";
  return fmt::format("{} on {}{} ({})", run.name, sequences, evaluation.data, evaluation.split);
}

/// Of a job, in the order of the table.
constexpr const char* shown_settings[] = {"model.layers",         "model.width", "model.head_dim",
                                          "data.sequence_length", "data.batch",  "schedule.steps",
                                          "schedule.peak_lr",     "job.seed",    "job.precision"};

/// A number or a string; null for a key that the job does not have.
Json setting_of(const JobSettings& job, const char* key) {
  const auto value = job.value_of(key);
  if (value == "-") return nullptr;
  const auto number = Json::parse(value, nullptr, false);
  return number.is_number() ? number : Json(unquoted(value));
}

std::string setting_cell(const Json& setting) {
  if (setting.is_null()) return "-";
  return setting.is_string() ? setting.get<std::string>() : setting.dump();
}

std::string loss_cell(const PatternLoss* of) {
  return of != nullptr && std::isfinite(of->loss) ? fmt::format("{:.3f}", of->loss) : "-";
}

}  // namespace

const PatternLoss* loss_under(const RunMetrics& run, const std::string& pattern) {
  const auto& losses = evaluation_of(run).losses;
  const auto found = std::ranges::find(losses, pattern, &PatternLoss::pattern);
  return found == losses.end() ? nullptr : &*found;
}

const PatternLoss* TradeoffModel::before(const std::string& pattern) const {
  return loss_under(*run, pattern);
}

const PatternLoss* TradeoffModel::after(const std::string& pattern) const {
  const auto found = std::ranges::find(adapted, pattern, &AdaptedModel::pattern);
  return found == adapted.end() ? nullptr : loss_under(*found->run, pattern);
}

Tradeoff::Tradeoff(const std::vector<RunMetrics>& runs, const std::vector<JobSettings>& jobs) {
  require(!runs.empty() && runs.size() == jobs.size(), "a trade-off of {} runs and {} jobs", runs.size(),
          jobs.size());
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (!jobs[r].missing.empty()) fail("{}", jobs[r].missing);
    const Measurement& evaluation = evaluation_of(runs[r]);
    if (r > 0 && evaluation.sequence_length != sequence_length)
      fail("{}: was evaluated in sequences of {} tokens, {} of {}; evaluate both alike (--sequence-length)",
           runs[r].directory.string(), evaluation.sequence_length, runs[0].directory.string(),
           sequence_length);
    sequence_length = evaluation.sequence_length;
    if (warning.empty() && differ_in_text(evaluation_of(runs[0]), evaluation)) {
      warning = fmt::format("Evaluated on different text, so that losses do not compare: {}, {}",
                            text_of(runs[0]), text_of(runs[r]));
    }
    if (is_adapted(jobs[r])) continue;
    models.push_back({.run = &runs[r], .job = &jobs[r], .adapted = {}});
    for (const auto& of : evaluation.losses) {
      if (std::ranges::find(patterns, of.pattern) == patterns.end()) patterns.push_back(of.pattern);
    }
  }
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (!is_adapted(jobs[r])) continue;
    const RunMetrics* origin = origin_of(runs[r], jobs[r], runs, jobs);
    const auto model = std::ranges::find(models, origin, &TradeoffModel::run);
    if (origin == nullptr || model == models.end())
      fail("{}: was adapted from {}, which is not among the runs; give that run too",
           runs[r].directory.string(), unquoted(jobs[r].value_of("job.from")));
    model->adapted.push_back({.run = &runs[r], .job = &jobs[r], .pattern = trained_pattern(runs[r])});
    if (loss_under(runs[r], model->adapted.back().pattern) == nullptr)
      fail("{}: was not evaluated under {}, to which it was adapted; add it to ratplus eval's --pattern",
           runs[r].directory.string(), pattern_label(model->adapted.back().pattern));
  }
}

namespace {

std::string bits_cell(const PatternLoss* of) {
  const bool known = of != nullptr && of->bits_per_byte && std::isfinite(*of->bits_per_byte);
  return known ? fmt::format("{:.4f}", *of->bits_per_byte) : "-";
}

/// A column a model.
std::vector<std::string> head(const Tradeoff& tradeoff) {
  std::vector<std::string> row = {"pattern"};
  for (const auto& model : tradeoff.models) row.push_back(model.run->name);
  return row;
}

/// Rows of the patterns for which any model has a cell.
template <typename Cell>
void add_rows(Rows& rows, const Tradeoff& tradeoff, const std::string& prefix, Cell&& cell_of) {
  for (const auto& pattern : tradeoff.patterns) {
    std::vector<std::string> row = {prefix + pattern_label(pattern)};
    for (const auto& model : tradeoff.models) row.push_back(cell_of(model, pattern));
    if (std::any_of(row.begin() + 1, row.end(), [](const auto& cell) { return cell != "-"; }))
      rows.push_back(std::move(row));
  }
}

/// Before and after adaptation; `cell_of` shows a result, or null where there is none.
TradeoffTable result_table(const Tradeoff& tradeoff, const char* title,
                           std::string (*cell_of)(const PatternLoss*)) {
  TradeoffTable table{title, {head(tradeoff)}};
  add_rows(table.rows, tradeoff, "", [&](const TradeoffModel& model, const std::string& pattern) {
    return cell_of(loss_under(*model.run, pattern));
  });
  const auto before = table.rows.size();
  table.rows.push_back({});
  add_rows(table.rows, tradeoff, "adapted, ", [&](const TradeoffModel& model, const std::string& pattern) {
    return cell_of(model.after(pattern));
  });
  if (table.rows.size() == before + 1) table.rows.pop_back();
  return table;
}

TradeoffTable cache_table(const Tradeoff& tradeoff) {
  TradeoffTable table{
      fmt::format("Cache of a sequence of {} tokens in bfloat16, KiB", tradeoff.sequence_length),
      {head(tradeoff)}};
  add_rows(table.rows, tradeoff, "", [](const TradeoffModel& model, const std::string& pattern) {
    const PatternLoss* of = loss_under(*model.run, pattern);
    return of == nullptr ? std::string("-") : fmt::format("{:.0f}", double(of->cache_bytes) / 1024);
  });
  return table;
}

TradeoffTable settings_table(const Tradeoff& tradeoff) {
  TradeoffTable table{"Models and their pretraining", {head(tradeoff)}};
  table.rows[0][0] = "setting";
  for (const char* key : shown_settings) {
    std::vector<std::string> row = {key};
    for (const auto& model : tradeoff.models) row.push_back(setting_cell(setting_of(*model.job, key)));
    if (std::any_of(row.begin() + 1, row.end(), [](const auto& cell) { return cell != "-"; }))
      table.rows.push_back(std::move(row));
  }
  return table;
}

/// A row a pattern of each model with these positions.
TradeoffTable position_table(const std::vector<ModelPositions>& models,
                             const std::vector<std::string>& names) {
  TradeoffTable table{"Held-out perplexity by position in the sequence", {{"positions"}}};
  table.rows[0].insert(table.rows[0].end(), names.begin(), names.end());
  for (const auto& model : models) {
    if (model.positions != names) continue;
    for (const auto& of : model.patterns) {
      std::vector<std::string> row = {model.name + ", " + of.label};
      for (const double loss : of.losses)
        row.push_back(std::isfinite(loss) ? fmt::format("{:.2f}", std::exp(loss)) : "-");
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

/// Runs of the trade-off: each model, then those adapted from it.
std::vector<const RunMetrics*> all_runs(const Tradeoff& tradeoff) {
  std::vector<const RunMetrics*> runs;
  for (const auto& model : tradeoff.models) {
    runs.push_back(model.run);
    for (const auto& adapted : model.adapted) runs.push_back(adapted.run);
  }
  return runs;
}

std::string score_cell(const Score& score) {
  if (std::isfinite(score.error)) return fmt::format("{:.4f} ± {:.4f}", score.value, score.error);
  return fmt::format("{:.4f}", score.value);
}

/// A row a run and pattern, a column a task's metric.
TradeoffTable score_table(const Tradeoff& tradeoff) {
  TradeoffTable table{"Scores of lm-evaluation-harness, with standard errors", {{"model"}}};
  std::vector<std::pair<std::string, std::string>> columns;
  for (const auto* run : all_runs(tradeoff)) {
    for (const auto& of : run->scores) {
      for (const auto& score : of.scores) {
        const std::pair column{score.task, score.metric};
        if (std::ranges::find(columns, column) == columns.end()) columns.push_back(column);
      }
    }
  }
  for (const auto& [task, metric] : columns) table.rows[0].push_back(task + ", " + metric);
  for (const auto* run : all_runs(tradeoff)) {
    for (const auto& of : run->scores) {
      std::vector<std::string> row = {of.pattern.empty() ? run->name
                                                         : run->name + ", " + pattern_label(of.pattern)};
      for (const auto& column : columns) {
        const auto found = std::ranges::find_if(of.scores, [&](const Score& score) {
          return std::pair{score.task, score.metric} == column;
        });
        row.push_back(found == of.scores.end() ? "-" : score_cell(*found));
      }
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

/// A row a pair, the difference under each pattern.
TradeoffTable pair_table(const Tradeoff& tradeoff) {
  const auto [labels, pairs] = model_pairs(tradeoff);
  TradeoffTable table{fmt::format("Differences in loss between precisions, between seeds and between "
                                  "roundings alone, nats a token (a "
                                  "precision is accepted within {} and within the seeds' largest)",
                                  precision_bound),
                      {{"pair"}}};
  table.rows[0].insert(table.rows[0].end(), labels.begin(), labels.end());
  table.rows[0].insert(table.rows[0].end(), {"largest", "verdict"});
  for (const auto& pair : pairs) {
    std::vector<std::string> row = {pair.second->run->name + " less " + pair.first->run->name};
    for (const double difference : pair.differences)
      row.push_back(std::isfinite(difference) ? fmt::format("{:+.4f}", difference) : "-");
    row.push_back(fmt::format("{:.4f}", pair.largest));
    row.push_back(pair.kind == ModelPair::Kind::precisions ? pair.verdict
                                                           : std::string(to_string(pair.kind)));
    table.rows.push_back(std::move(row));
  }
  return table;
}

/// Tokens of each model's training, and their rate on the machine that trained it; empty where no run has recorded it.
TradeoffTable training_table(const Tradeoff& tradeoff) {
  TradeoffTable table{"Training", {head(tradeoff), {"tokens"}, {"tokens a second, median"}}};
  table.rows[0][0] = "";
  bool any = false;
  for (const auto& model : tradeoff.models) {
    const double rate = model.run->median("tokens_per_second");
    any = any || std::isfinite(rate);
    table.rows[1].push_back(model.run->last_step
                                ? format_value(Unit::count, static_cast<double>(model.run->last_step->tokens))
                                : "-");
    table.rows[2].push_back(std::isfinite(rate) ? format_value(Unit::count, rate) : "-");
  }
  if (!any) table.rows.resize(1);
  return table;
}

/// The fastest batch of each pattern and length.
TradeoffTable speed_table(const Tradeoff& tradeoff) {
  TradeoffTable table{"Generation, the batch with the most tokens a second",
                      {{"model", "length", "sequences", "tokens/s"}}};
  for (const auto* run : all_runs(tradeoff)) {
    std::vector<Speed> best;
    for (const auto& speed : run->speeds) {
      const auto found = std::ranges::find_if(
          best, [&](const Speed& x) { return x.pattern == speed.pattern && x.length == speed.length; });
      if (found == best.end()) {
        best.push_back(speed);
      } else if (speed.tokens_per_second > found->tokens_per_second) {
        *found = speed;
      }
    }
    for (const auto& speed : best) {
      table.rows.push_back({run->name + ", " + pattern_label(speed.pattern), fmt::format("{}", speed.length),
                            fmt::format("{}", speed.batch), fmt::format("{:.0f}", speed.tokens_per_second)});
    }
  }
  return table;
}

}  // namespace

std::vector<TradeoffTable> tradeoff_tables(const Tradeoff& tradeoff) {
  std::vector<TradeoffTable> tables = {result_table(tradeoff, "Held-out loss, nats a token", loss_cell)};
  auto bits = result_table(tradeoff, "Held-out bits per byte of text", bits_cell);
  if (bits.rows.size() > 1) tables.push_back(std::move(bits));
  tables.push_back(cache_table(tradeoff));
  for (auto& table : {settings_table(tradeoff), adaptation_length_table(tradeoff), pair_table(tradeoff)}) {
    if (table.rows.size() > 1) tables.push_back(table);
  }
  const auto models = losses_by_position(tradeoff);
  std::vector<std::vector<std::string>> done;
  for (const auto& model : models) {
    if (std::ranges::find(done, model.positions) != done.end()) continue;
    tables.push_back(position_table(models, model.positions));
    done.push_back(model.positions);
  }
  for (auto& table : {score_table(tradeoff), training_table(tradeoff), speed_table(tradeoff)}) {
    if (table.rows.size() > 1) tables.push_back(table);
  }
  return tables;
}

std::vector<ModelPositions> losses_by_position(const Tradeoff& tradeoff) {
  std::vector<ModelPositions> models;
  for (const auto& model : tradeoff.models) {
    const auto& evaluation = evaluation_of(*model.run);
    if (evaluation.positions.empty()) continue;
    ModelPositions result{.name = model.run->name, .positions = evaluation.positions, .patterns = {}};
    for (const auto& of : evaluation.losses) {
      result.patterns.push_back({of.pattern, pattern_label(of.pattern), false, of.by_position});
      const auto* after = model.after(of.pattern);
      if (after != nullptr && after->by_position.size() == result.positions.size())
        result.patterns.push_back(
            {of.pattern, "adapted, " + pattern_label(of.pattern), true, after->by_position});
    }
    models.push_back(std::move(result));
  }
  return models;
}

std::string tradeoff_text(const Tradeoff& tradeoff) {
  std::string text = tradeoff.warning.empty() ? "" : tradeoff.warning + "\n";
  for (const auto& [title, rows] : tradeoff_tables(tradeoff))
    text += (text.empty() ? "" : "\n") + title + "\n" + format_table(rows);
  return text;
}

std::string tradeoff_markdown(const Tradeoff& tradeoff) {
  std::string text = tradeoff.warning.empty() ? "" : "**" + tradeoff.warning + "**\n";
  for (const auto& [title, rows] : tradeoff_tables(tradeoff)) {
    text += (text.empty() ? "" : "\n") + fmt::format("{}:\n\n", title);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].empty()) continue;
      for (const auto& cell : rows[r]) text += "| " + markdown_cell(cell) + " ";
      text += "|\n";
      if (r > 0) continue;
      text += "|---";
      for (std::size_t i = 1; i < rows[r].size(); ++i) text += "|---:";
      text += "|\n";
    }
  }
  return text;
}

std::string tradeoff_html(const Tradeoff& tradeoff) {
  std::string html = "<h2>Loss against cache</h2>\n";
  if (!tradeoff.warning.empty()) html += "<p><strong>" + escape(tradeoff.warning) + "</strong></p>\n";
  html += "<div class=\"wide\">" + draw_tradeoff_chart(tradeoff) + "</div>\n";
  if (const auto chart = draw_position_chart(tradeoff); !chart.empty())
    html += "<h2>Perplexity by position</h2>\n<div class=\"wide\">" + chart + "</div>\n";
  for (const auto& [title, rows] : tradeoff_tables(tradeoff)) {
    html += "<h3>" + escape(title) + "</h3>\n<div class=\"wide\"><table>\n";
    for (std::size_t r = 0; r < rows.size(); ++r) {
      if (rows[r].empty()) continue;
      html += fmt::format("<tr><th scope=\"row\">{}</th>", escape(rows[r].front()));
      const char* element = r == 0 ? "th" : "td";
      for (std::size_t i = 1; i < rows[r].size(); ++i)
        html += fmt::format("<{0}>{1}</{0}>", element, escape(rows[r][i]));
      html += "</tr>\n";
    }
    html += "</table></div>\n";
  }
  return html;
}

namespace {

Json results_json(const RunMetrics& run) {
  Json results = Json::array();
  for (const auto& of : evaluation_of(run).losses) {
    Json entry = {{"pattern", of.pattern},
                  {"loss", of.loss},
                  {"perplexity", std::exp(of.loss)},
                  {"cache_bytes", of.cache_bytes}};
    if (of.bits_per_byte) entry["bits_per_byte"] = *of.bits_per_byte;
    if (!of.by_position.empty()) entry["by_position"] = of.by_position;
    for (const auto& scored : run.scores) {
      if (scored.pattern != of.pattern) continue;
      for (const auto& score : scored.scores) {
        auto& json = entry["scores"][score.task][score.metric];
        json["value"] = score.value;
        if (std::isfinite(score.error)) json["standard_error"] = score.error;
      }
    }
    results.push_back(std::move(entry));
  }
  return results;
}

Json run_json(const RunMetrics& run) {
  Json json = {{"name", run.name}};
  put_path(json, "directory", run.directory.string());
  json["step"] = evaluation_of(run).step;
  if (run.last_step) json["training"]["tokens"] = run.last_step->tokens;
  if (const double rate = run.median("tokens_per_second"); std::isfinite(rate))
    json["training"]["tokens_per_second"] = rate;
  for (const auto& speed : run.speeds) {
    json["generation"].push_back({{"pattern", speed.pattern},
                                  {"length", speed.length},
                                  {"sequences", speed.batch},
                                  {"tokens_per_second", speed.tokens_per_second}});
  }
  return json;
}

}  // namespace

std::string tradeoff_json(const Tradeoff& tradeoff) {
  Json all = {{"sequence_length", tradeoff.sequence_length},
              {"positions", evaluation_of(*tradeoff.models.front().run).positions},
              {"models", Json::array()}};
  if (!tradeoff.warning.empty()) all["warning"] = tradeoff.warning;
  for (const auto& model : tradeoff.models) {
    Json json = run_json(*model.run);
    for (const char* key : shown_settings) {
      if (auto setting = setting_of(*model.job, key); !setting.is_null()) json["settings"][key] = setting;
    }
    json["results"] = results_json(*model.run);
    json["adapted"] = Json::array();
    for (const auto& adapted : model.adapted) {
      Json entry = run_json(*adapted.run);
      entry["pattern"] = adapted.pattern;
      entry["results"] = results_json(*adapted.run);
      json["adapted"].push_back(std::move(entry));
    }
    all["models"].push_back(std::move(json));
  }
  const auto [labels, pairs] = model_pairs(tradeoff);
  for (const auto& pair : pairs) {
    Json entry = {{"first", pair.first->run->name},
                  {"second", pair.second->run->name},
                  {"of", to_string(pair.kind)},
                  {"differences", Json::object()},
                  {"largest", pair.largest}};
    for (std::size_t l = 0; l < labels.size(); ++l) {
      if (std::isfinite(pair.differences[l])) entry["differences"][labels[l]] = pair.differences[l];
    }
    if (!pair.verdict.empty()) entry["verdict"] = pair.verdict;
    all["pairs"].push_back(std::move(entry));
  }
  return json_dump(all, 1) + "\n";
}

}  // namespace ratplus::report
