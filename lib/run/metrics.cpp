#include "lib/run/metrics.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "lib/run/metrics_fields.h"

namespace ratplus::run {
namespace {

using Json = nlohmann::ordered_json;

/// Adds a field to a line: null where it is not known.
struct AddTo {
  Json& line;

  template <typename Value>
  void operator()(const Field& field, const Value& value) const {
    line[field.name] = value;
    if constexpr (std::is_same_v<Value, std::int64_t>) {
      if (field.negative_is_unknown && value < 0) line[field.name] = nullptr;
    }
  }
};

Json to_json(const UpdateMetrics& update) {
  Json json;
  for_each_update_field(update, AddTo{json});
  if (!update.updated) json["updated"] = false;
  return json;
}

/// To 4 digits, since there may be many of them.
double brief(double seconds) {
  return std::stod(fmt::format("{:.4g}", seconds));
}

Json to_json(const HealthMetrics& health) {
  Json json;
  for_each_health_field(health, [&](const Field& field, const auto& value) {
    using Value = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, double>) {
      json[field.name] = brief(value);
    } else if constexpr (std::is_same_v<Value, std::vector<double>>) {
      json[field.name] = Json::array();
      for (const double seconds : value) json[field.name].push_back(brief(seconds));
    } else {
      json[field.name] = value;
    }
  });
  return json;
}

/// Whether an entry reports an update of the next step that a run at `step` has left out and does not come to again.
/// Earlier versions called the update a half.
bool is_behind(const std::string& line, const LineHead& head, std::int64_t step, std::size_t begun) {
  if (head.kind != "not_finite" || head.step != step + 1) return false;
  const auto entry = Json::parse(line);
  const auto number = entry.find(entry.contains("half") ? "half" : "update");
  return number != entry.end() && number->is_number_unsigned() && number->get<std::uint64_t>() <= begun;
}

/// With the reason in errno.
[[noreturn]] void fail_reading(const std::filesystem::path& file) {
  const int error = errno;
  fail("{}: cannot be read{}; it is left as it is: make it readable, or move it away to begin another",
       file.string(), error == 0 ? "" : fmt::format(" ({})", std::strerror(error)));
}

}  // namespace

double wall_time() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(since).count()) / 1000;
}

std::optional<LineHead> head_of(const std::string& line) {
  // A crash may leave NUL bytes, at which the parser would end.
  if (line.find('\0') != std::string::npos) return std::nullopt;
  const auto entry = Json::parse(line, nullptr, false);
  if (!entry.is_object()) return std::nullopt;
  const auto kind = entry.find("kind");
  const auto step = entry.find("step");
  if (kind == entry.end() || !kind->is_string() || step == entry.end() || !step->is_number_integer())
    return std::nullopt;
  return LineHead{kind->get<std::string>(), step->get<std::int64_t>()};
}

/// Leaves the file's lines up to a step and so many updates of the next; what is no line of metrics is dropped.
/// Line by line: a long run's file may be larger than memory.
void MetricsFile::keep_until(std::int64_t step, std::size_t begun) {
  PendingFile pending(file_);
  std::ofstream kept(pending.path());
  errno = 0;
  std::ifstream in(file_);
  if (!in && errno != ENOENT) fail_reading(file_);  // where there is none, it is a new run
  std::string line;
  while (std::getline(in, line)) {
    const auto head = head_of(line);
    if (!head) continue;
    if (head->kind == "checkpoint") told_step_ = std::max(told_step_, head->step);
    if (head->step > step && !is_behind(line, *head, step, begun)) continue;
    if (head->kind == "validation") last_validation_ = head->step;
    kept << line << '\n';
  }
  // What could be read would take the place of the whole.
  if (in.bad()) fail_reading(file_);
  kept.close();
  if (!kept) fail("{}: cannot be written; is there space left on the device?", file_.string());
  pending.commit();
}

MetricsFile::MetricsFile(const std::filesystem::path& run, std::int64_t step, std::size_t begun)
    : file_(run / "metrics.jsonl") {
  keep_until(step, begun);
  out_.emplace(file_);
}

void MetricsFile::append(std::string line) {
  line += '\n';
  out_->add(line);
}

void MetricsFile::write(const StepMetrics& metrics) {
  Json line = {{"kind", "step"}, {"time", wall_time()}};
  for_each_step_field(metrics, AddTo{line});
  line["updates"] = Json::array();
  for (const auto& update : metrics.updates) line["updates"].push_back(to_json(update));
  if (metrics.health) line["health"] = to_json(*metrics.health);
  append(json_dump(line));
}

void MetricsFile::write(const ValidationMetrics& metrics) {
  Json results = Json::array();
  for (const auto& result : metrics.results) {
    Json entry = {{"pattern", result.pattern}};
    for_each_result_number(result, [&](const char* name, double value) { entry[name] = value; });
    results.push_back(std::move(entry));
  }
  last_validation_ = metrics.step;
  append(json_dump(Json{{"kind", "validation"},
                        {"time", wall_time()},
                        {"step", metrics.step},
                        {"tokens", metrics.tokens},
                        {"results", std::move(results)},
                        {"seconds", metrics.seconds}}));
}

void MetricsFile::write(const CheckpointMetrics& metrics) {
  Json line = {{"kind", "checkpoint"}, {"time", wall_time()}};
  for_each_checkpoint_field(metrics, AddTo{line});
  append(json_dump(line));
}

void MetricsFile::write(const NotFiniteMetrics& metrics) {
  Json line = {
      {"kind", "not_finite"}, {"time", wall_time()}, {"step", metrics.step}, {"update", metrics.number + 1}};
  line.update(to_json(metrics.update));
  line["file"] = metrics.file.empty() ? Json() : Json(metrics.file);
  append(json_dump(line));
}

void MetricsFile::write(const DifferingMetrics& metrics) {
  append(json_dump(Json{{"kind", "differing"},
                        {"time", wall_time()},
                        {"step", metrics.step},
                        {"found_step", metrics.found},
                        {"difference", metrics.difference}}));
}

}  // namespace ratplus::run
