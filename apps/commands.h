// The commands of the program, one source file each. A command takes the words after its name and returns the
// exit status; it throws Error for what the user can mend, and main prints that once.
#pragma once

#include <string>
#include <vector>

namespace ratplus::apps {

using Arguments = std::vector<std::string>;

int prepare_command(const Arguments& args);
int samples_command(const Arguments& args);
int needles_command(const Arguments& args);
int import_command(const Arguments& args);
int tokenize_command(const Arguments& args);
int train_command(const Arguments& args);
int submit_command(const Arguments& args);
int eval_command(const Arguments& args);
int generate_command(const Arguments& args);
int score_command(const Arguments& args);
int serve_command(const Arguments& args);
int convert_command(const Arguments& args);
int inspect_command(const Arguments& args);
int plan_command(const Arguments& args);
int check_command(const Arguments& args);
int report_command(const Arguments& args);
int watch_command(const Arguments& args);
int bench_command(const Arguments& args);
int data_bench_command(const Arguments& args);
int completion_command(const Arguments& args);
int manual_command(const Arguments& args);

/// Exit statuses besides 0 (done) and 1 (failed, with a message).
inline constexpr int exit_usage = 2;  ///< the command line is wrong
inline constexpr int exit_not_finite =
    3;  ///< a loss or a gradient norm was not finite: the state before that update is saved
inline constexpr int exit_differing = 4;   ///< ranks differed in what they hold alike: nothing was saved
inline constexpr int exit_stands_out = 5;  ///< `ratplus check` found something to look at
inline constexpr int exit_interrupted =
    75;  ///< stopped by a signal, saved, to be continued with --resume (EX_TEMPFAIL)

}  // namespace ratplus::apps
