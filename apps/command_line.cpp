#include "apps/command_line.h"

#include <cstdlib>
#include <iostream>
#include <string_view>

#include "kernels/error.h"

namespace ratplus::apps {

namespace po = boost::program_options;

namespace {

/// This process's rank as the launcher says it; null without one.
const char* launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* rank = std::getenv(name)) return rank;
  }
  return nullptr;
}

}  // namespace

bool launched() {
  return launched_rank() != nullptr;
}

bool first_of_job() {
  return !launched() || std::string_view(launched_rank()) == "0";
}

/// Every rank would write the same files.
void refuse_ranks(const char* command) {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* ranks = std::getenv(variable);
    if (ranks != nullptr && std::atoi(ranks) > 1)
      fail("{} uses the cores of one machine; start it without mpirun", command);
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
