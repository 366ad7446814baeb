#include "lib/report/metrics_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/files/whole_path.h"
#include "base/parse_json.h"
#include "kernels/pattern.h"
#include "lib/report/evaluated_checkpoint.h"
#include "lib/report/job_settings.h"
#include "lib/report/warnings.h"
#include "lib/run/metrics_fields.h"

namespace ratplus::report {
namespace {

using Json = nlohmann::json;

constexpr std::size_t longest_line = 16 << 20;  ///< bytes; a line of metrics has some hundreds

double number_or_nan(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

Measurement parse_measurement(const Json& entry, const char* losses_key) {
  Measurement measurement;
  measurement.step = entry.at("step").get<std::int64_t>();
  measurement.tokens = entry.value("tokens", std::int64_t{0});
  measurement.sequence_length = entry.value("sequence_length", std::int64_t{0});
  measurement.positions = entry.value("positions", std::vector<std::string>());
  measurement.data = entry.value("data", std::string());
  measurement.split = entry.value("split", std::string());
  measurement.sequences = entry.value("sequences", std::int64_t{0});
  for (const Json& item : entry.at(losses_key)) {
    measurement.losses.push_back({item.at("pattern").get<std::string>(), number_or_nan(item.at("loss")), {}});
    auto& loss = measurement.losses.back();
    loss.cache_bytes = item.value("cache_bytes", std::int64_t{0});
    if (item.contains("bits_per_byte")) loss.bits_per_byte = number_or_nan(item.at("bits_per_byte"));
    if (item.contains("by_position")) {
      for (const Json& part : item.at("by_position")) loss.by_position.push_back(number_or_nan(part));
    }
    if (!item.contains("token_accuracy")) continue;
    loss.accuracy = {.token = item.at("token_accuracy").get<double>(),
                     .completion = item.at("completion_accuracy").get<double>()};
  }
  return measurement;
}

/// The position of a measurement in the run, not a measurement.
bool is_position(const std::string& field) {
  return field == "kind" || field == "time" || run::is_shown_as(run::Shown::position, field);
}

/// Every number of an entry that has one value, under the field's name with `prefix` before it.
void add_numbers(const Json& entry, const std::string& prefix, std::int64_t step, RunMetrics& run) {
  for (const auto& [field, value] : entry.items()) {
    if (is_position(field) || !(value.is_number() || value.is_null())) continue;
    run.add(prefix + field, "", step, number_or_nan(value));
  }
}

/// Every number of each update but its loss. Updates of the same pattern are told apart as add_step() does it.
void add_update_numbers(const Json& updates, const Measurement& measured, RunMetrics& run) {
  for (std::size_t h = 0; h < updates.size(); ++h) {
    for (const auto& [field, value] : updates[h].items()) {
      if (field == "loss" || !(value.is_number() || value.is_null())) continue;
      run.add(field, measured.losses[h].pattern, measured.step, number_or_nan(value));
    }
  }
}

run::HealthMetrics parse_health(const Json& json) {
  run::HealthMetrics health;
  run::for_each_health_field(health, [&](const run::Field& field, auto& value) {
    if (const auto found = json.find(field.name); found != json.end() && !found->is_null())
      found->get_to(value);
  });
  return health;
}

void parse_not_finite(const Json& entry, RunMetrics& run) {
  auto& left_out = run.left_out ? *run.left_out : run.left_out.emplace();
  ++left_out.updates;
  left_out.step = entry.at("step").get<std::int64_t>();
  left_out.pattern = entry.at("pattern").get<std::string>();
  left_out.loss = number_or_nan(entry.value("loss", Json()));
  left_out.gradient_norm = number_or_nan(entry.value("gradient_norm", Json()));
  const auto file = entry.find("file");
  left_out.file = file != entry.end() && file->is_string() ? file->get<std::string>() : "";
}

void parse_step(const Json& entry, RunMetrics& run) {
  const char* updates = entry.contains("halves") ? "halves" : "updates";  // the name of earlier versions
  auto step = parse_measurement(entry, updates);
  const std::int64_t before = run.last_step ? run.last_step->step : 0;
  const History* seconds = run.find("seconds");
  if (seconds != nullptr && entry.contains("seconds") && number_or_nan(entry["seconds"]) < seconds->last()) {
    ++run.previous_starts;
  }
  run.steps_a_line = step.step > before ? step.step - before : run.steps_a_line;
  run.steps = entry.value("steps", run.steps);
  run.seconds_left = entry.contains("seconds_left") ? number_or_nan(entry["seconds_left"]) : -1;
  run.add_step(std::move(step));
  add_update_numbers(entry.at(updates), *run.last_step, run);
  add_numbers(entry, "", run.last_step->step, run);
  run.health.reset();
  if (!entry.contains("health")) return;
  run.health = parse_health(entry["health"]);
  add_numbers(entry["health"], "health_", run.last_step->step, run);
}

void parse_line(std::string_view line, RunMetrics& run) {
  const Json entry = parse_json<Json>(line);
  const auto kind = entry.at("kind").get<std::string>();
  run.time = entry.value("time", run.time);
  if (kind == "step") return parse_step(entry, run);
  const auto step = entry.at("step").get<std::int64_t>();
  if (kind == "validation") run.add_validation(parse_measurement(entry, "results"));
  if (kind == "checkpoint") run.saved_step = step;
  if (kind == "not_finite") parse_not_finite(entry, run);
  if (kind == "differing") {
    run.went_back = {entry.at("found_step").get<std::int64_t>(), step,
                     entry.at("difference").get<std::string>()};
  }
  if (kind == "validation" || kind == "checkpoint") add_numbers(entry, kind + "_", step, run);
}

/// The last step that the run's lines name.
std::int64_t reached_step(const RunMetrics& run) {
  std::int64_t step = run.saved_step;
  for (const auto* measured : {&run.last_step, &run.last_validation}) {
    if (*measured) step = std::max(step, (*measured)->step);
  }
  return step;
}

/// Takes the run's evaluation.json, unless it is of another one.
void read_evaluation(RunMetrics& run) {
  const auto file = run.directory / "evaluation.json";
  if (!std::filesystem::exists(file)) return;
  try {
    const auto json = parse_json<Json>(read_whole_file(file));
    auto evaluation = parse_measurement(json, "results");
    const EvaluatedCheckpoint evaluated{.path = json.value("checkpoint", std::string()),
                                        .manifest_sha256 = json.value("manifest_sha256", std::string()),
                                        .step = evaluation.step};
    const auto reason = not_of_run(evaluated, run.directory, reached_step(run));
    if (reason.empty()) {
      run.evaluation = std::move(evaluation);
      return;
    }
    run.not_its_evaluation =
        fmt::format("{} {}, so it is left out; evaluate the run: ratplus eval {} --json {}", file.string(),
                    reason, run.directory.string(), file.string());
  } catch (const Json::exception& error) {
    fail("{}: not what `ratplus eval --json` writes ({}); remove it, and write it anew", file.string(),
         error.what());
  }
}

/// Says what a validation was made on, as far as the run's job tells.
void add_text_of_validation(RunMetrics& run) {
  if (!run.last_validation) return;
  const auto job = read_job_settings(run.directory);
  const auto number = [&](const char* key) {
    const auto value = Json::parse(job.value_of(key), nullptr, false);
    return value.is_number_integer() ? value.get<std::int64_t>() : std::int64_t{0};
  };
  const auto data = job.value_of("data.directory");
  if (data == "-") return;
  run.last_validation->data = unquoted(data);
  run.last_validation->split = "validation";
  run.last_validation->sequence_length = number("data.sequence_length");
}

/// The last `parts` parts of a path.
std::string tail_of(const std::filesystem::path& path, std::size_t parts) {
  std::filesystem::path tail;
  auto rest = path;
  for (std::size_t i = 0; i < parts && rest.has_relative_path(); ++i, rest = rest.parent_path())
    tail = i == 0 ? rest.filename() : rest.filename() / tail;
  return (tail.empty() ? path : tail).string();
}

}  // namespace

void RunMetrics::add(std::string_view field, std::string_view pattern, std::int64_t step, double value) {
  auto found =
      std::ranges::find_if(series, [&](const Series& s) { return s.field == field && s.pattern == pattern; });
  if (found == series.end()) {
    series.push_back({std::string(field), std::string(pattern), History()});
    found = series.end() - 1;
  }
  found->history.add(step, value);
}

void RunMetrics::add_step(Measurement step) {
  for (std::size_t h = 1; h < step.losses.size(); ++h) {
    if (step.losses[h].pattern == step.losses[0].pattern) step.losses[h].pattern += ", second update";
  }
  for (const auto& update : step.losses) add("loss", update.pattern, step.step, update.loss);
  if (step.step > 0 && step.tokens > 0) {
    tokens_per_step = static_cast<double>(step.tokens) / static_cast<double>(step.step);
  }
  last_step = std::move(step);
}

void RunMetrics::add_validation(Measurement validation) {
  for (const auto& result : validation.losses)
    add("validation_loss", result.pattern, validation.step, result.loss);
  if (validation.step > 0 && validation.tokens > 0) {
    tokens_per_step = static_cast<double>(validation.tokens) / static_cast<double>(validation.step);
  }
  last_validation = std::move(validation);
}

const History* RunMetrics::find(std::string_view field, std::string_view pattern) const {
  for (const Series& one : series) {
    if (one.field == field && one.pattern == pattern) return &one.history;
  }
  return nullptr;
}

double RunMetrics::last(std::string_view field, std::string_view pattern) const {
  const History* history = find(field, pattern);
  return history == nullptr ? std::numeric_limits<double>::quiet_NaN() : history->last();
}

double RunMetrics::median(std::string_view field, std::size_t count) const {
  const History* history = find(field);
  return history == nullptr ? std::numeric_limits<double>::quiet_NaN() : history->median(count);
}

std::vector<std::string> RunMetrics::patterns_of(std::string_view field) const {
  std::vector<std::string> patterns;
  for (const Series& one : series) {
    if (one.field == field) patterns.push_back(one.pattern);
  }
  return patterns;
}

const Measurement* RunMetrics::final_result() const {
  const bool evaluated = evaluation && (!last_validation || evaluation->step >= last_validation->step);
  if (evaluated) return &*evaluation;
  return last_validation ? &*last_validation : nullptr;
}

MetricsReader::MetricsReader(std::filesystem::path run) : file_(run / "metrics.jsonl") {
  metrics_.name = tail_of(whole_path(run), 1);
  metrics_.directory = std::move(run);
}

void MetricsReader::begin_again() {
  RunMetrics fresh;
  fresh.directory = metrics_.directory;
  fresh.name = metrics_.name;
  metrics_ = std::move(fresh);
  offset_ = 0;
  lines_ = 0;
  rest_.clear();
}

bool MetricsReader::update(std::int64_t most) {
  const bool changed = take_lines(most);
  metrics_.end = run::read_run_end(metrics_.directory);
  return changed;
}

bool MetricsReader::take_lines(std::int64_t most) {
  struct stat status {};
  if (::stat(file_.c_str(), &status) != 0) return false;
  if (status.st_ino != inode_ || status.st_size < offset_) begin_again();
  inode_ = status.st_ino;
  size_ = status.st_size;
  const std::int64_t until = most < size_ - offset_ ? offset_ + most : size_;
  std::ifstream in(file_, std::ios::binary);
  if (!in) fail("{}: cannot be read; are you allowed to?", file_.string());
  in.seekg(offset_);
  const auto lines_before = lines_;
  std::string block(std::size_t{1} << 20, '\0');
  while (offset_ < until) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    std::string_view bytes(block.data(), static_cast<std::size_t>(in.gcount()));
    if (bytes.empty()) break;
    offset_ += static_cast<std::int64_t>(bytes.size());
    for (auto end = bytes.find('\n'); end != std::string_view::npos; end = bytes.find('\n')) {
      rest_ += bytes.substr(0, end);
      bytes.remove_prefix(end + 1);
      take(rest_);
      rest_.clear();
    }
    rest_ += bytes;
    if (rest_.size() > longest_line) {
      fail("{}:{}: a line of more than {} bytes, so this is no file of metrics", file_.string(), lines_ + 1,
           longest_line);
    }
  }
  return lines_ > lines_before;
}

void MetricsReader::take(std::string_view line) {
  try {
    parse_line(line, metrics_);
  } catch (const Json::exception& error) {
    fail("{}:{}: not a line of metrics ({}); remove the line to read the rest", file_.string(), lines_ + 1,
         error.what());
  }
  ++lines_;
}

void MetricsReader::finish() {
  if (!rest_.empty() && Json::accept(rest_)) take(rest_);
  rest_.clear();
}

RunMetrics read_metrics(const std::filesystem::path& run) {
  MetricsReader reader(run);
  if (!std::filesystem::exists(run)) fail("{}: there is no such run directory", run.string());
  if (!std::filesystem::is_directory(run)) fail_no_run_directory(run);
  if (!std::filesystem::exists(reader.file())) {
    fail("{}: cannot be read; a run directory is the job.directory of a `ratplus train` that has begun",
         reader.file().string());
  }
  reader.update();
  reader.finish();
  RunMetrics metrics = reader.metrics();
  if (!metrics.last_step && !metrics.last_validation) {
    if (const auto end = describe_end(metrics); !end.empty())
      fail("{}: has no step and no validation; the run {}", reader.file().string(), end);
    fail("{}: has no step and no validation yet; let the run reach its first log line (log.every)",
         reader.file().string());
  }
  add_text_of_validation(metrics);
  read_evaluation(metrics);
  metrics.scores = read_scores(run);
  metrics.speeds = read_speeds(run);
  return metrics;
}

void fail_no_run_directory(const std::filesystem::path& file) {
  const auto parent = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const bool in_run = std::filesystem::exists(parent / "metrics.jsonl");
  fail("{}: is no directory; give the run directory, {}", file.string(),
       in_run ? parent.string() : "the job.directory of its job file");
}

namespace {

/// Throws Error where two of the paths lead to one directory, by whatever spelling or link.
void require_different(const std::vector<std::filesystem::path>& runs) {
  std::error_code ignored;  // what is missing is named when it is read
  for (auto run = runs.begin(); run != runs.end(); ++run) {
    const auto again = std::find_if(run + 1, runs.end(), [&](const auto& other) {
      return std::filesystem::equivalent(*run, other, ignored);
    });
    if (again == runs.end()) continue;
    if (*again == *run) fail("{}: is given twice; name each run once", run->string());
    fail("{} and {} are the same run; name each run once", run->string(), again->string());
  }
}

}  // namespace

std::vector<RunMetrics> read_metrics(const std::vector<std::filesystem::path>& runs) {
  require_different(runs);
  std::vector<RunMetrics> metrics;
  const auto names = telling_names(runs);
  for (const auto& run : runs) {
    metrics.push_back(read_metrics(run));
    metrics.back().name = names[metrics.size() - 1];
  }
  return metrics;
}

std::vector<std::string> telling_names(const std::vector<std::filesystem::path>& runs) {
  std::vector<std::filesystem::path> paths;
  for (const auto& run : runs) paths.push_back(whole_path(run));
  std::vector<std::string> names;
  for (const auto& path : paths) {
    const auto shared = [&](std::size_t parts) {
      return std::ranges::any_of(paths, [&](const auto& other) {
        return other != path && tail_of(other, parts) == tail_of(path, parts);
      });
    };
    std::size_t parts = 1;
    while (shared(parts)) ++parts;
    names.push_back(tail_of(path, parts));
  }
  return names;
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
