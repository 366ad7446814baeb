// What evaluations beside the run left in its directory: scores of lm-evaluation-harness, and speeds of generation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace ratplus::report {

/// One metric of one task.
struct Score {
  std::string task, metric;  ///< "arc_easy", "acc_norm"
  double value = 0;
  double error = std::numeric_limits<double>::quiet_NaN();  ///< standard error; NaN: not known
};

struct PatternScores {
  std::string pattern;  ///< as the served model's name has it: "16,256,4"; empty: none
  std::vector<Score> scores;
};

/// Of the harness's files results*.json anywhere below RUN/scores (`jobs/evaluate/commonsense.sh --output RUN/scores`): of
/// several with one pattern and task, the newest file's. Other files are passed over; throws Error for one that is damaged.
std::vector<PatternScores> read_scores(const std::filesystem::path& run);

/// One line of `ratplus bench generate --json RUN/generation.json`.
struct Speed {
  std::string pattern;
  std::int64_t length = 0;  ///< tokens of a sequence
  std::int64_t batch = 0;   ///< sequences
  double tokens_per_second = 0;
};
/// Steps alone; none where there is no such file. Throws Error for one that is damaged.
std::vector<Speed> read_speeds(const std::filesystem::path& run);

}  // namespace ratplus::report
