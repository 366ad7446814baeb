// What `ratplus watch` shows of a run: one screen of a terminal.
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

/// What a person should look after: losses that are not finite, updates left out, a run that writes no more, and what the
/// run itself warns of: a slow rank, throughput far below its own median, steps that wait for data. A sentence each.
std::vector<std::string> find_warnings(const RunMetrics& run, double now);

/// At most `rows` lines of exactly `columns` columns each: how far the run is and when it ends, its last values,
/// warnings, curves as far as there is room, and its log.
std::vector<TerminalLine> make_watch_frame(const WatchedRun& run, std::size_t columns, std::size_t rows,
                                           const TerminalStyle& style);

}  // namespace ratplus::report
