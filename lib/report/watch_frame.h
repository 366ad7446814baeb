// The screen of `ratplus watch`.
#pragma once

#include <string>
#include <vector>

#include "lib/report/metrics_reader.h"
#include "lib/report/terminal_text.h"

namespace ratplus::report {

struct WatchedRun {
  const RunMetrics& metrics;
  std::string summary;           ///< of the job: "pretrain, joint"; empty where job.toml is not there yet
  std::vector<std::string> log;  ///< the last lines of log.txt
  double now = 0;                ///< seconds since 1970
};

/// At most `rows` lines of exactly `columns` columns each: how far the run is and when it ends, its last values,
/// warnings, curves as far as there is room, and its log.
std::vector<TerminalLine> make_watch_frame(const WatchedRun& run, std::size_t columns, std::size_t rows,
                                           const TerminalStyle& style);

}  // namespace ratplus::report
