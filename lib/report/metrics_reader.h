// What a run directory says about its losses: metrics.jsonl, and evaluation.json where there is one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace ratplus::report {

/// The loss of one of a step's updates, or of a validation, under one attention pattern. Mean cross-entropy
/// in nats a token; NaN where the run had diverged (JSON has no NaN; it stands as null).
struct PatternLoss {
  std::string pattern;  ///< as model::PatternPlan::describe writes it: "dense", "64,0,0"
  double loss = 0;
};

/// A step or a validation: what was measured when `tokens` tokens had been seen.
struct Measurement {
  std::int64_t step = 0;
  std::int64_t tokens = 0;
  std::vector<PatternLoss> losses;  ///< a step: one for each half, in order; a validation: one a pattern
};

struct RunMetrics {
  std::filesystem::path directory;
  std::string name;  ///< of the directory
  std::vector<Measurement> steps;
  std::vector<Measurement> validations;
  std::optional<Measurement>
      evaluation;  ///< `ratplus eval --json RUN/evaluation.json`; its tokens are unknown

  /// What the run is judged by: its evaluation unless a later validation outdates it, else the last
  /// validation. Null where there is neither.
  const Measurement* final_result() const;
};

/// Reads a run directory. A last line of metrics.jsonl that a crash has cut short is left out, and so is what
/// a resumed run has done again. Throws Error naming file and line for any other line that cannot be read,
/// and for a directory without a step or a validation.
RunMetrics read_metrics(const std::filesystem::path& run);
std::vector<RunMetrics> read_metrics(const std::vector<std::filesystem::path>& runs);

/// The loss under `pattern`, if it was measured.
std::optional<double> loss_of(const Measurement* measurement, const std::string& pattern);

/// How tables and legends write a pattern: "dense", "D = 64", "D = 16, W = 256, I = 4"; what is no single
/// pattern stays as it is.
std::string pattern_label(const std::string& pattern);

}  // namespace ratplus::report
