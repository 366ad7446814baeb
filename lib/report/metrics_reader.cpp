#include "lib/report/metrics_reader.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/pending_file.h"
#include "kernels/error.h"
#include "kernels/pattern.h"

namespace ratplus::report {
namespace {

using Json = nlohmann::json;

double number_or_nan(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

Measurement parse_measurement(const Json& entry, const char* losses_key) {
  Measurement measurement;
  measurement.step = entry.at("step").get<std::int64_t>();
  measurement.tokens = entry.value("tokens", std::int64_t{0});
  for (const Json& item : entry.at(losses_key)) {
    measurement.losses.push_back({item.at("pattern").get<std::string>(), number_or_nan(item.at("loss"))});
  }
  return measurement;
}

/// Appends; a step that was reached again after a crash replaces what followed it the first time.
void append(std::vector<Measurement>& history, Measurement next) {
  while (!history.empty() && history.back().step >= next.step) history.pop_back();
  history.push_back(std::move(next));
}

void parse_line(const std::string& line, RunMetrics& run) {
  const Json entry = Json::parse(line);
  const auto kind = entry.at("kind").get<std::string>();
  if (kind == "step") append(run.steps, parse_measurement(entry, "halves"));
  if (kind == "validation") append(run.validations, parse_measurement(entry, "results"));
}

void read_lines(const std::filesystem::path& file, RunMetrics& run) {
  std::ifstream in(file);
  if (!in) {
    fail("{}: cannot be read; a run directory is the job.directory of a `ratplus train` that has begun",
         file.string());
  }
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const bool cut_short = in.eof();  // no newline after it
    try {
      parse_line(line, run);
    } catch (const Json::exception& error) {
      if (cut_short) return;
      fail("{}:{}: not a line of metrics ({}); remove the line to read the rest", file.string(), number,
           error.what());
    }
  }
}

std::optional<Measurement> read_evaluation(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return std::nullopt;
  try {
    return parse_measurement(Json::parse(data::read_whole_file(file)), "results");
  } catch (const Json::exception& error) {
    fail("{}: not what `ratplus eval --json` writes ({}); write it anew, or remove it", file.string(),
         error.what());
  }
}

std::string directory_name(const std::filesystem::path& directory) {
  const auto path = std::filesystem::absolute(directory).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

}  // namespace

const Measurement* RunMetrics::final_result() const {
  const bool evaluated = evaluation && (validations.empty() || evaluation->step >= validations.back().step);
  if (evaluated) return &*evaluation;
  return validations.empty() ? nullptr : &validations.back();
}

RunMetrics read_metrics(const std::filesystem::path& run) {
  RunMetrics metrics;
  metrics.directory = run;
  metrics.name = directory_name(run);
  const auto file = run / "metrics.jsonl";
  read_lines(file, metrics);
  if (metrics.steps.empty() && metrics.validations.empty()) {
    fail("{}: has no step and no validation yet; let the run reach its first log line (log.every)",
         file.string());
  }
  metrics.evaluation = read_evaluation(run / "evaluation.json");
  return metrics;
}

std::vector<RunMetrics> read_metrics(const std::vector<std::filesystem::path>& runs) {
  std::vector<RunMetrics> metrics;
  for (const auto& run : runs) metrics.push_back(read_metrics(run));
  return metrics;
}

std::optional<double> loss_of(const Measurement* measurement, const std::string& pattern) {
  if (measurement == nullptr) return std::nullopt;
  const auto& losses = measurement->losses;
  const auto found = std::ranges::find(losses, pattern, &PatternLoss::pattern);
  if (found == losses.end()) return std::nullopt;
  return found->loss;
}

std::string pattern_label(const std::string& pattern) {
  try {
    const Pattern parsed = parse_pattern(pattern);
    if (parsed == Pattern{}) return "dense";  // D = 1 with sinks is dense too, but another column
    const bool dilated = parsed.dilation != Pattern::no_dilation;
    std::string label = dilated ? fmt::format("D = {}", parsed.dilation) : "no dilation";
    if (parsed.window > 0 || !dilated) label += fmt::format(", W = {}", parsed.window);
    if (parsed.sinks > 0) label += fmt::format(", I = {}", parsed.sinks);
    return label;
  } catch (const Error&) {
    return pattern;  // one a layer, or one a head
  }
}

}  // namespace ratplus::report
