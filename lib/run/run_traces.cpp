#include "lib/run/run_traces.h"

#include <system_error>

#include "lib/checkpoint/checkpoint.h"
#include "lib/run/start_files.h"

namespace ratplus::run {

RunTraces traces_of(const std::filesystem::path& run) {
  std::error_code none;
  const auto bytes = std::filesystem::file_size(run / "metrics.jsonl", none);
  return {.checkpoint = checkpoint::newest(run),
          .start = newest_start_file(run),
          .metrics_bytes = none ? -1 : static_cast<std::int64_t>(bytes)};
}

}  // namespace ratplus::run
