// ratplus train: pretrain or adapt a model, as a job file says.
#include <fmt/core.h>

#include <boost/program_options.hpp>
#include <iostream>
#include <optional>

#include "apps/commands.h"
#include "apps/train_display.h"
#include "apps/with_ranks.h"
#include "kernels/error.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* help_text = R"(usage: ratplus train JOB.toml [--set section.key=value ...] [--resume]
       mpirun -n 8 ratplus train JOB.toml ...          (or srun: the same command)

Trains the model that a job file describes, on as many MPI ranks as it is started with:
  kind = "pretrain"   from initial weights; recipe = "joint" makes two updates on every batch,
                      a sparse one (job.joint_pattern) and one with job.pattern; "plain" one
  kind = "adapt"      from the weights of job.from, with job.pattern, a fresh optimizer
All output goes to job.directory: job.toml (the effective job), log.txt, metrics.jsonl,
checkpoints/, loss.svg. Ctrl-C or SIGTERM finishes the step, saves and ends with status 75;
the same command with --resume goes on from the newest checkpoint, bit for bit.

)";

constexpr const char* help_end = R"(
examples:
  ratplus train configs/quickstart/pretrain.toml
  mpirun -n 4 ratplus train configs/pretrain/1b.toml --set data.micro_batch=2 parallel.shard=full
  ratplus train configs/adapt/1b.toml --set job.pattern=64,0,4 --set job.directory=runs/1b-d64
docs/job-files.md lists every key.
)";

struct TrainArguments {
  std::string job;
  std::vector<std::string> overrides;
  bool resume = false;
  bool print_config = false;
};

/// Empty when help was asked for and given.
std::optional<TrainArguments> parse(const Arguments& args) {
  TrainArguments parsed;
  po::options_description options("options");
  options.add_options()("set", po::value(&parsed.overrides)->composing()->multitoken()->value_name("SECTION.KEY=VALUE"),
                        "override a key of the job file; the value is TOML, a bare word is a string")(
      "resume", po::bool_switch(&parsed.resume),
      "go on from the newest checkpoint in job.directory; from the start if there is none")(
      "print-config", po::bool_switch(&parsed.print_config), "print the whole effective job and end")(
      "help,h", "this text");
  po::options_description all;
  all.add(options).add_options()("job", po::value(&parsed.job), "");
  po::variables_map values;
  po::store(po::command_line_parser(args).options(all).positional(po::positional_options_description().add("job", 1)).run(),
            values);
  if (values.contains("help")) {
    std::cout << help_text << options << help_end;
    return std::nullopt;
  }
  po::notify(values);
  if (parsed.job.empty()) throw po::error("a job file is missing");
  return parsed;
}

int train(const TrainArguments& args, const parallel::World& world) {
  config::JobConfig job;
  world.agree([&] { job = config::load_job(args.job, args.overrides); });
  if (args.print_config) {
    if (world.root()) fmt::print("{}", config::to_toml(job));
    return 0;
  }
  train::RunState state;
  world.agree([&] { state = train::look_at_run(job, args.resume); });
  if (state.finished) {
    if (world.root()) {
      fmt::print("{}: finished already, {} of {} steps ({})\n", job.job.directory, state.step, job.schedule.steps,
                 state.checkpoint->string());
    }
    return 0;
  }
  const auto dataset = train::open_dataset(job, world);  // before anything is written
  std::optional<train::RunDirectory> run;
  world.agree([&] {
    if (world.root()) run.emplace(job);
  });
  TrainDisplay display(job, world, run ? &*run : nullptr);
  if (args.resume && !state.checkpoint) display.say("no checkpoint to resume from: starting at the beginning");
  train::Trainer trainer(job, world, dataset, state.checkpoint, display);
  if (trainer.run() == train::Outcome::interrupted) {
    display.say(fmt::format("stopped by a signal after step {}; go on with --resume", trainer.step()));
    return exit_interrupted;
  }
  display.say(fmt::format("done: {}", job.job.directory));
  return 0;
}

}  // namespace

int train_command(Arguments args) {
  const auto parsed = parse(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) { return train(*parsed, world); });
}

}  // namespace ratplus::apps
