// ratplus: trains and evaluates RAT+ language models. This file finds the command and prints what it throws.
#include <fmt/core.h>

#include <boost/program_options/errors.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>

#include "apps/command_line.h"
#include "apps/command_list.h"
#include "apps/output.h"
#include "apps/spinning.h"
#include "apps/version.h"
#include "apps/with_ranks.h"

namespace ratplus::apps {
namespace {

void print_overview(std::FILE* out) {
  fmt::print(
      out,
      "usage: ratplus COMMAND [options]\n\nTrains RAT+ language models on MPI ranks: densely once, then "
      "adapted to sparse attention patterns.\n\ncommands:\n");
  for (const auto& command : all_commands()) fmt::print(out, "  {:<10} {}\n", command.name, command.summary);
  fmt::print(
      out,
      "\n`ratplus COMMAND --help` explains a command, `ratplus --version` names the program and its "
      "libraries.\nBegin with jobs/quickstart.sh, or:\n"
      "  ratplus prepare books/ --train-tokenizer --vocab-size 2048 --validation-fraction 0.05 --output "
      "data/books\n"
      "  mpirun -n 2 ratplus train configs/quickstart/pretrain.toml --set data.directory=data/books\n");
}

int run(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    print_overview(stdout);
    return 0;
  }
  if (name == "--version" || name == "version") {
    print_version();
    return 0;
  }
  if (const Command* command = find_command(name)) {
    if (command->computes) shorten_spinning(argv);
    return command->run(Arguments(argv + 2, argv + argc));
  }
  if (!name.empty()) print_error(fmt::format("there is no command \"{}\"\n", name));
  print_overview(stderr);
  return exit_usage;
}

}  // namespace
}  // namespace ratplus::apps

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file above its size limit (ulimit -f) is a failed write with a message
  using ratplus::apps::print_error;
  ratplus::apps::open_standard_streams();
  try {
    return ratplus::apps::check_output(ratplus::apps::run(argc, argv));
  } catch (const boost::program_options::error& error) {
    if (!ratplus::apps::first_of_job()) return ratplus::apps::end_together(ratplus::apps::exit_usage);
    print_error(fmt::format("{}; see `ratplus {} --help`", error.what(), argv[1]), argv[1]);
    return ratplus::apps::end_together(ratplus::apps::exit_usage);
  } catch (const std::bad_alloc&) {
    print_error("no memory is left; allow more (ulimit -v, the batch job's or container's memory)");
    return 1;
  } catch (const std::exception& error) {
    print_error(error.what());
    return 1;
  }
}
