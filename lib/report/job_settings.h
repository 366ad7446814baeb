// The settings of runs, as their job.toml has them, and in what they differ.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace ratplus::report {

/// A run's effective job. Keys have their present names, and are not checked:
/// another version of the program may have written them.
struct JobSettings {
  std::string text;                                         ///< job.toml; empty where there is none
  std::vector<std::pair<std::string, std::string>> values;  ///< "data.batch" and "8", in the file's order
  std::string missing;  ///< why there are no values; empty where there are

  /// "-" for a key that it does not have.
  std::string value_of(const std::string& key) const;
};

/// Throws nothing: what is wrong with the file is said in `missing`.
JobSettings read_job_settings(const std::filesystem::path& run);

/// A string value of a job file, without its quotes.
std::string unquoted(const std::string& value);

/// Keys in which any two of the jobs differ, in the order of the files.
std::vector<std::string> differing_keys(const std::vector<JobSettings>& jobs);

}  // namespace ratplus::report
