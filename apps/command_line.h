// A command's options, its positional arguments and its help, by Boost.Program_options.
#pragma once

#include <boost/program_options.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "lib/config/job.h"

namespace ratplus::apps {

/// From the variables of mpirun or srun, before MPI starts: whether one of them started this process, and whether it is
/// the only one or the first of its job. Help and mistakes in the command line are printed once.
bool launched();
bool first_of_job();
/// Throws Error where there are several ranks, for a command that has no use for them.
void refuse_ranks(const char* command);

/// Runs f, a check of options by a room below; throws its Error as boost::program_options::error, so that the command ends
/// as for any other mistake in its command line.
void as_usage_error(const std::function<void()>& f);

/// What stands without an option's name: "JOB.toml", "RUN...".
struct Positional {
  const char* name;                                      ///< of the pseudo-option it is parsed as
  int at_most;                                           ///< -1: any number
  const boost::program_options::value_semantic* target;  ///< as po::value(&variable)
  const char* missing;  ///< the message if there is none: "a job file is missing"; null: there may be none
  const char* words;    ///< "JOB.toml", "SRC DST": what each is, the last one for all that follow
};

/// The text around the list of options in a command's --help.
struct HelpText {
  const char* before;
  const char* after;
};

/// Leaves a command's options with usage_of (apps/usage.h), if that has asked for them: the command then ends.
bool leave_usage(const boost::program_options::options_description& options, const Positional& positional,
                 const HelpText& help);

/// Prints a line on standard error for each key that the job's file or --set gave by an old name; once for all ranks.
void print_renamed_keys(const config::JobConfig& job);

/// Parses, and fills the variables that the options name. Empty when --help was asked for: it is printed. Throws
/// boost::program_options::error for a command line that cannot be. An option's old name is read as the present one, which
/// a line on standard error names.
std::optional<boost::program_options::variables_map> parse_command_line(
    const Arguments& args, boost::program_options::options_description options, const Positional& positional,
    const HelpText& help);

}  // namespace ratplus::apps
