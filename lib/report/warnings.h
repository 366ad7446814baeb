// How a run stands, in words: how it ended, and what a person should look after.
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
/// that goes on, of one that has finished, and where nothing has told its end.
std::string describe_end(const RunMetrics& run);

/// The same in a word: "stopped", "failed"; empty in the same cases.
std::string end_in_a_word(const RunMetrics& run);

/// What a person should look after: losses that are not finite, updates left out, a run that writes no more, and what the
/// run itself warns of: a slow rank, throughput far below its own median, steps that wait for data. A sentence each.
std::vector<std::string> find_warnings(const RunMetrics& run, double now);

}  // namespace ratplus::report
