#include "lib/report/scores.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"

namespace ratplus::report {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json read_json(const fs::path& file) {
  try {
    return parse_json<Json>(read_whole_file(file));
  } catch (const Json::exception& error) {
    fail("{}: not JSON ({}); remove it, and write it again", file.string(), error.what());
  }
}

/// The results below the directory, the oldest first.
std::vector<fs::path> result_files(const fs::path& directory) {
  std::vector<fs::path> files;
  if (!fs::is_directory(directory)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const auto name = entry.path().filename().string();
    if (entry.is_regular_file() && name.starts_with("results") && name.ends_with(".json"))
      files.push_back(entry.path());
  }
  // Their names end in the time, within a directory for each model.
  std::ranges::sort(files, {}, [](const fs::path& file) { return file.filename(); });
  return files;
}

/// "acc,none" and "acc_stderr,none". A filter of lm-evaluation-harness other than none stays in the name:
/// "exact_match,strict-match".
void add_task(const std::string& task, const Json& metrics, std::vector<Score>& scores) {
  std::erase_if(scores, [&](const Score& score) { return score.task == task; });
  for (const auto& [name, value] : metrics.items()) {
    const auto comma = name.find(',');
    const auto metric = name.substr(0, comma);
    if (comma == std::string::npos || !value.is_number() || metric.ends_with("_stderr")) continue;
    const auto filter = name.substr(comma);
    Score score{.task = task, .metric = filter == ",none" ? metric : name, .value = value.get<double>()};
    const auto error = metrics.find(metric + "_stderr" + filter);
    if (error != metrics.end() && error->is_number()) score.error = error->get<double>();
    scores.push_back(std::move(score));
  }
}

}  // namespace

std::vector<PatternScores> read_scores(const fs::path& run) {
  std::vector<PatternScores> all;
  for (const auto& file : result_files(run / "scores")) {
    const auto json = read_json(file);
    if (!json.is_object() || !json.contains("results") || !json.at("results").is_object()) continue;
    std::string name;
    if (json.contains("model_name") && json.at("model_name").is_string())
      name = json.at("model_name").get<std::string>();
    const auto at = name.find('@');
    const auto pattern = at == std::string::npos ? std::string() : name.substr(at + 1);
    auto found = std::ranges::find(all, pattern, &PatternScores::pattern);
    if (found == all.end()) found = all.insert(all.end(), {pattern, {}});
    for (const auto& [task, metrics] : json.at("results").items()) {
      if (metrics.is_object()) add_task(task, metrics, found->scores);
    }
  }
  return all;
}

std::vector<Speed> read_speeds(const fs::path& run) {
  std::vector<Speed> speeds;
  const auto file = run / "generation.json";
  if (!fs::exists(file)) return speeds;
  const auto json = read_json(file);
  try {
    for (const auto& time : json.at("times")) {
      if (time.at("kind") != "step") continue;
      speeds.push_back({time.at("pattern").get<std::string>(), time.at("length").get<std::int64_t>(),
                        time.at("sequences").get<std::int64_t>(),
                        time.at("tokens_per_second").get<double>()});
    }
  } catch (const Json::exception& error) {
    fail("{}: is not what `ratplus bench generate --json` writes ({})", file.string(), error.what());
  }
  return speeds;
}

}  // namespace ratplus::report
