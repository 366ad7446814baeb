#include "lib/run/metrics.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"

namespace ratplus::run {
namespace {

using Json = nlohmann::ordered_json;

/// Null where it is not known.
Json bytes_or_null(std::int64_t bytes) {
  return bytes < 0 ? Json() : Json(bytes);
}

Json to_json(const UpdateMetrics& update) {
  Json json = {{"pattern", update.pattern}, {"loss", update.loss}, {"gradient_norm", update.gradient_norm}};
  if (!update.updated) json["updated"] = false;
  return json;
}

/// To 4 digits, since there may be many of them.
double brief(double seconds) {
  return std::stod(fmt::format("{:.4g}", seconds));
}

Json to_json(const HealthMetrics& health) {
  Json rank_seconds = Json::array();
  for (const double seconds : health.rank_seconds) rank_seconds.push_back(brief(seconds));
  return {{"rank_seconds", std::move(rank_seconds)},
          {"slowest_rank", health.slowest},
          {"slowest_host", health.slowest_host},
          {"lag_seconds", brief(health.lag_seconds)},
          {"data_wait_share", brief(health.data_wait_share)},
          {"pace_ratio", brief(health.pace_ratio)},
          {"straggler", health.straggler},
          {"slowdown", health.slowdown},
          {"data_wait", health.data_wait}};
}

/// Whether an entry reports an update of the next step that a run at `step` has left out and does not come to again.
/// Earlier versions called the update a half.
bool is_behind(const Json& entry, std::int64_t step, std::size_t begun) {
  return entry.value("kind", "") == "not_finite" && entry.value("step", std::int64_t{0}) == step + 1 &&
         entry.value(entry.contains("half") ? "half" : "update", begun + 1) <= begun;
}

}  // namespace

double wall_time() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(since).count()) / 1000;
}

/// Leaves the file's lines up to a step and so many updates of the next; a last line cut short by a crash is dropped.
/// Line by line: a long run's file may be larger than memory.
void MetricsFile::keep_until(std::int64_t step, std::size_t begun) {
  PendingFile pending(file_);
  std::ofstream kept(pending.path());
  std::ifstream in(file_);  // none: a new run
  std::string line;
  while (std::getline(in, line)) {
    const auto entry = Json::parse(line, nullptr, false);
    // A crash may leave NUL bytes, at which the parser would end.
    if (entry.is_discarded() || line.find('\0') != std::string::npos) continue;
    const auto of_line = entry.value("step", std::int64_t{0});
    const auto kind = entry.value("kind", "");
    if (kind == "checkpoint") told_step_ = std::max(told_step_, of_line);
    if (of_line > step && !is_behind(entry, step, begun)) continue;
    if (kind == "validation") last_validation_ = entry.value("step", std::int64_t{-1});
    kept << line << '\n';
  }
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
  Json updates = Json::array();
  for (const auto& update : metrics.updates) updates.push_back(to_json(update));
  Json line = {{"kind", "step"},
               {"time", wall_time()},
               {"step", metrics.step},
               {"steps", metrics.steps},
               {"tokens", metrics.tokens},
               {"learning_rate", metrics.learning_rate},
               {"updates", std::move(updates)},
               {"tokens_per_second", metrics.tokens_per_second},
               {"seconds", metrics.seconds},
               {"seconds_left", metrics.seconds_left},
               {"step_seconds", metrics.step_seconds},
               {"data_wait_seconds", metrics.data_wait_seconds},
               {"data_wait_share", metrics.data_wait_share},
               {"share_of_peak", metrics.share_of_peak},
               {"memory_bytes", metrics.memory_bytes},
               {"memory_available_bytes", bytes_or_null(metrics.memory_available_bytes)},
               {"host_memory_bytes", bytes_or_null(metrics.host_memory_bytes)},
               {"skipped_updates", metrics.skipped_updates}};
  if (metrics.health) line["health"] = to_json(*metrics.health);
  append(json_dump(line));
}

void MetricsFile::write(const ValidationMetrics& metrics) {
  Json results = Json::array();
  for (const auto& result : metrics.results) {
    Json entry = {{"pattern", result.pattern}, {"loss", result.loss}, {"perplexity", std::exp(result.loss)}};
    if (result.accuracy) {
      entry["token_accuracy"] = result.accuracy->token;
      entry["completion_accuracy"] = result.accuracy->completion;
    }
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
  append(json_dump(Json{{"kind", "checkpoint"},
                        {"time", wall_time()},
                        {"step", metrics.step},
                        {"path", metrics.path},
                        {"seconds", metrics.seconds},
                        {"stall_seconds", metrics.stall_seconds},
                        {"background", metrics.background},
                        {"copy_seconds", metrics.copy_seconds},
                        {"copied_bytes", metrics.copied_bytes}}));
}

void MetricsFile::write(const NotFiniteMetrics& metrics) {
  Json line = {
      {"kind", "not_finite"}, {"time", wall_time()}, {"step", metrics.step}, {"update", metrics.number + 1}};
  line.update(to_json(metrics.update));
  line["file"] = metrics.file.empty() ? Json() : Json(metrics.file);
  append(json_dump(line));
}

}  // namespace ratplus::run
