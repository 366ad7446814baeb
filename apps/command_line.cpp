#include "apps/command_line.h"

#include <iostream>

#include "base/error.h"
#include "parallel/launch.h"

namespace ratplus::apps {

namespace po = boost::program_options;

bool launched() {
  return parallel::find_launch().launched;
}

bool first_of_job() {
  return parallel::find_launch().rank <= 0;
}

/// Every rank would write the same files.
void refuse_ranks(const char* command) {
  const auto launch = parallel::find_launch();
  if (launch.processes <= 1) return;
  fail(
      "{} uses the cores of one machine, and {} processes of it were started ({}); start one, without mpirun "
      "or srun",
      command, launch.processes, launch.variable);
}

void as_usage_error(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    throw po::error(error.what());
  }
}

std::optional<po::variables_map> parse_command_line(const Arguments& args, po::options_description options,
                                                    const Positional& positional, const HelpText& help) {
  options.add_options()("help,h", "this text");
  po::options_description all;
  all.add(options).add_options()(positional.name, positional.target, "");
  po::positional_options_description places;
  places.add(positional.name, positional.at_most);
  po::variables_map values;
  po::store(po::command_line_parser(args).options(all).positional(places).run(), values);
  if (values.contains("help")) {
    if (first_of_job()) std::cout << help.before << options << help.after;
    return std::nullopt;
  }
  po::notify(values);
  if (!values.contains(positional.name)) throw po::error(positional.missing);
  return values;
}

}  // namespace ratplus::apps
