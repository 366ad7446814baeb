// ratplus: trains and evaluates RAT+ language models. This file finds the command and prints what it throws.
#include <fmt/core.h>

#include <array>
#include <boost/program_options/errors.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/output.h"
#include "apps/spinning.h"
#include "apps/version.h"
#include "apps/with_ranks.h"

namespace ratplus::apps {
namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(const Arguments&);
  bool computes = false;  ///< by OpenMP's threads
};

constexpr std::array commands = {
    Command{"prepare", "text to a tokenizer and HDF5 token shards", prepare_command},
    Command{"samples", "prompts and completions to samples with labels, for fine-tuning", samples_command},
    Command{"needles", "retrieval tasks of RULER's kind from any prose, to fine-tune on and to answer",
            needles_command, true},
    Command{"import", "token streams that are there already (raw .bin, HDF5) to token shards",
            import_command},
    Command{"tokenize", "text to token numbers, and back", tokenize_command},
    Command{"train", "pretrain, adapt or fine-tune a model by a job file", train_command, true},
    Command{"submit", "a training job to Slurm's queue, checked before", submit_command},
    Command{"eval", "loss and perplexity of a checkpoint under sparsity patterns, or logits of given tokens",
            eval_command, true},
    Command{"generate", "text from a model, at the terminal or for a file of prompts", generate_command,
            true},
    Command{"score", "answers to retrieval tasks beside their references, by RULER's scores", score_command},
    Command{"serve", "a model behind OpenAI's API for completions", serve_command, true},
    Command{"convert", "weights to and from PyTorch and safetensors, other types, other numbers of files",
            convert_command},
    Command{"inspect", "what a dataset, a shard, a checkpoint, weights, a run or a job file holds",
            inspect_command},
    Command{"plan", "memory, time and GPU hours of a job on a cluster, without a GPU", plan_command},
    Command{"check",
            "rates of devices, links and disks of a job's ranks, clocks and versions, before a long run",
            check_command, true},
    Command{"report", "one or several runs as a page of curves, a picture of their losses, and tables",
            report_command},
    Command{"watch", "a run in the terminal, live", watch_command},
    Command{"bench", "times of a layer's operations, or of a job's training steps and their communication",
            bench_command, true},
    Command{"data-bench", "how fast texts are tokenized and samples are loaded", data_bench_command, true},
};

void print_overview(std::FILE* out) {
  fmt::print(
      out,
      "usage: ratplus COMMAND [options]\n\nTrains RAT+ language models on MPI ranks: densely once, then "
      "adapted to sparse attention patterns.\n\ncommands:\n");
  for (const auto& command : commands) fmt::print(out, "  {:<10} {}\n", command.name, command.summary);
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
  for (const auto& command : commands) {
    if (command.name != name) continue;
    if (command.computes) shorten_spinning(argv);
    return command.run(Arguments(argv + 2, argv + argc));
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
