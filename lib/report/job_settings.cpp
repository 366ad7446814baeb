#include "lib/report/job_settings.h"

#include <fmt/core.h>
#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "lib/config/old_names.h"

namespace ratplus::report {
namespace {

std::string text_of(const toml::node& value) {
  std::ostringstream text;
  value.visit([&](const auto& known) { text << toml::toml_formatter(known); });
  return text.str();
}

/// In the order of the file, which a table has not.
std::vector<std::pair<std::string, std::string>> values_in_order(const toml::table& job) {
  struct Entry {
    toml::source_index line;
    std::pair<std::string, std::string> value;
  };
  std::vector<Entry> entries;
  for (const auto& [section, content] : job) {
    const auto* keys = content.as_table();
    if (keys == nullptr) continue;
    for (const auto& [key, value] : *keys) {
      const auto given = fmt::format("{}.{}", section.str(), key.str());
      entries.push_back(
          {value.source().begin.line, {std::string(config::present_key(given)), text_of(value)}});
    }
  }
  std::ranges::stable_sort(entries, {}, &Entry::line);
  std::vector<std::pair<std::string, std::string>> values;
  for (Entry& entry : entries) values.push_back(std::move(entry.value));
  return values;
}

}  // namespace

std::string JobSettings::value_of(const std::string& key) const {
  const auto found = std::ranges::find(values, key, &std::pair<std::string, std::string>::first);
  return found == values.end() ? "-" : found->second;
}

JobSettings read_job_settings(const std::filesystem::path& run) {
  JobSettings job;
  const auto file = run / "job.toml";
  try {
    job.text = read_whole_file(file);
    job.values = values_in_order(toml::parse(job.text));
  } catch (const Error& error) {
    job.missing = error.what();
  } catch (const toml::parse_error& error) {
    job.missing = fmt::format("{}:{}: {}", file.string(), error.source().begin.line, error.description());
  }
  return job;
}

std::string unquoted(const std::string& value) {
  if (value.size() < 2 || (value.front() != '"' && value.front() != '\'')) return value;
  return value.substr(1, value.size() - 2);
}

std::vector<std::string> differing_keys(const std::vector<JobSettings>& jobs) {
  std::vector<std::string> keys;
  for (const JobSettings& job : jobs) {
    for (const auto& [key, value] : job.values) {
      if (std::ranges::find(keys, key) != keys.end()) continue;
      const bool differs =
          std::ranges::any_of(jobs, [&, &key = key, &value = value](const JobSettings& other) {
            return other.missing.empty() && other.value_of(key) != value;
          });
      if (differs) keys.push_back(key);
    }
  }
  return keys;
}

}  // namespace ratplus::report
