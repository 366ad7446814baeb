// RunTraces: what stands in a run directory, to see whether another start has been there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "base/error.h"

namespace ratplus::run {

struct RunTraces {
  std::optional<std::filesystem::path> checkpoint;  ///< the newest
  std::optional<std::filesystem::path> start;       ///< the record of the newest
  std::int64_t metrics_bytes = -1;                  ///< of metrics.jsonl; -1: none
  bool operator==(const RunTraces&) const = default;
};

/// Throws Error where the checkpoints' directory cannot be read.
RunTraces traces_of(const std::filesystem::path& run);

/// The run directory is no longer what it was found to be.
class RunChanged : public Error {
 public:
  using Error::Error;
};

}  // namespace ratplus::run
