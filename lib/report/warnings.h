// The end of a run and its problems, in words.
#pragma once

#include <string>
#include <vector>

#include "lib/report/metrics_reader.h"

namespace ratplus::report {

/// Seconds since the run's last word: a line, or how it ended. NaN where that is not known.
double age_of(const RunMetrics& run, double now);

/// It says nothing for much longer than usual, and not that it has ended.
bool is_silent(const RunMetrics& run, double now);

/// "stopped by SIGTERM at step 57, saved; resume with --resume", or why it failed, with what to look at; empty of a run
/// that is running, has finished, or has recorded no end.
std::string describe_end(const RunMetrics& run);

/// The same in a word: "stopped", "failed"; empty in the same cases.
std::string end_in_a_word(const RunMetrics& run);

/// Problems that need attention: losses that are not finite, updates left out, a run that writes no more, and what the
/// run itself warns of: a slow rank, throughput far below its own median, steps that wait for data. A sentence each.
std::vector<std::string> find_warnings(const RunMetrics& run, double now);

}  // namespace ratplus::report
