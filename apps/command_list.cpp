#include "apps/command_list.h"

#include <algorithm>
#include <array>

namespace ratplus::apps {
namespace {

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
    Command{"bench",
            "times of a layer's operations, of training steps and their communication, or of generation",
            bench_command, true},
    Command{"data-bench", "how fast texts are tokenized and samples are loaded", data_bench_command, true},
    Command{"completion", "completions of the command line for bash, zsh or fish", completion_command},
    Command{"manual", "the manual page of the program, or of a command, for man", manual_command},
};

}  // namespace

std::span<const Command> all_commands() {
  return commands;
}

const Command* find_command(std::string_view name) {
  const auto found = std::ranges::find(commands, name, &Command::name);
  return found == commands.end() ? nullptr : &*found;
}

}  // namespace ratplus::apps
