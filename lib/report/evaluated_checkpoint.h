// The checkpoint that RUN/evaluation.json names: whether it is one of the run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace ratplus::report {

/// As `ratplus eval --json` has recorded it.
struct EvaluatedCheckpoint {
  std::filesystem::path path;   ///< as eval found it, from the directory it ran in; empty: not recorded
  std::string manifest_sha256;  ///< of the checkpoint's manifest; empty: not recorded
  std::int64_t step = 0;
};

/// Says that the checkpoint is another run's, or another checkpoint than the run's of that step; empty: nothing says so. A run
/// that was moved, renamed or copied, also without its weights, keeps its evaluation. `reached` is the run's last known step.
std::string not_of_run(const EvaluatedCheckpoint& evaluated, const std::filesystem::path& run,
                       std::int64_t reached);

}  // namespace ratplus::report
