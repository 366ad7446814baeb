// ratplus train: pretrain or adapt a model, as a job file says.
#include <fmt/core.h>

#include <optional>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/train_display.h"
#include "apps/with_ranks.h"
#include "kernels/error.h"
#include "lib/report/chart.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* help_text = R"(usage: ratplus train JOB.toml [--set section.key=value ...] [--resume]
       mpirun -n 8 ratplus train JOB.toml ...          (or srun: the same command)

Trains the model that a job file describes, on as many MPI ranks as it is started with:
  kind = "pretrain"   from initial weights; recipe = "joint" makes two updates on every batch,
                      a sparse one (job.joint_pattern) and one with job.pattern; "plain" one
  kind = "adapt"      from the weights of job.from, with job.pattern, a fresh optimizer
  kind = "finetune"   the same on samples with labels of their own (made by `ratplus samples`)
All output goes to job.directory: job.toml (the effective job), log.txt, metrics.jsonl,
checkpoints/, loss.svg. Ctrl-C, SIGTERM or SIGUSR1 to a rank finishes the step, saves and ends
with status 75; the same command with --resume goes on from the newest checkpoint, bit for bit.
mpirun kills its ranks a second after its own Ctrl-C or SIGTERM, but passes SIGUSR1 on: stop a
job by `kill -USR1` of mpirun, and set checkpoint.every for all else that may happen.

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
  options.add_options()(
      "set", po::value(&parsed.overrides)->composing()->multitoken()->value_name("SECTION.KEY=VALUE"),
      "override a key of the job file; the value is TOML, a bare word is a string")(
      "resume", po::bool_switch(&parsed.resume),
      "go on from the newest checkpoint in job.directory; from the start if there is none")(
      "print-config", po::bool_switch(&parsed.print_config), "print the whole effective job and end");
  const Positional job{"job", 1, po::value(&parsed.job),
                       "a job file is missing (give it before --set, which takes all words that follow)"};
  if (!parse_command_line(args, options, job, {help_text, help_end})) return std::nullopt;
  return parsed;
}

/// What the run directory holds: the root looks, once for all ranks.
train::RunState find_run(const config::JobConfig& job, bool resume, const parallel::World& world) {
  train::RunState state;
  const auto checkpoint = world.from_root([&] {
    state = train::look_at_run(job, resume);
    return state.checkpoint ? state.checkpoint->string() : std::string();
  });
  if (!checkpoint.empty()) state.checkpoint = checkpoint;
  state.step = world.max(state.step);
  state.finished = world.max(std::int64_t{state.finished}) != 0;
  return state;
}

/// A picture is no reason for a finished run to fail.
void draw_losses(const std::filesystem::path& run, TrainDisplay& display) {
  try {
    report::write_loss_chart({run}, run / "loss.svg");
  } catch (const Error& error) {
    display.say(fmt::format("no picture of the losses: {}", error.what()));
  }
}

int train(const TrainArguments& args, const parallel::World& world) {
  config::JobConfig job;
  world.agree([&] { job = config::load_job(args.job, args.overrides); });
  if (args.print_config) {
    if (world.root()) fmt::print("{}", config::to_toml(job));
    return 0;
  }
  job = train::complete_schedule(std::move(job), world);
  const auto found = find_run(job, args.resume, world);
  if (found.finished) {
    if (world.root()) {
      fmt::print("{}: finished already, {} of {} steps ({})\n", job.job.directory, found.step,
                 job.schedule.steps, found.checkpoint->string());
    }
    return 0;
  }
  const auto dataset = train::open_data(job, world);  // before anything is written
  const auto start = train::find_start(job, dataset, world, found.checkpoint);
  std::optional<train::RunDirectory> run;
  world.agree([&] {
    if (world.root()) run.emplace(job);
  });
  TrainDisplay display(job, world, run ? &*run : nullptr);
  if (args.resume && !found.checkpoint)
    display.say("no checkpoint to resume from: starting at the beginning");
  train::Trainer trainer(job, world, dataset, start, display);
  if (trainer.run() == train::Outcome::interrupted) {
    display.say(fmt::format("stopped by a signal after step {}; go on with --resume", trainer.step()));
    return exit_interrupted;
  }
  if (world.root()) draw_losses(job.job.directory, display);
  display.say(fmt::format("done: {}", job.job.directory));
  return 0;
}

}  // namespace

int train_command(const Arguments& args) {
  const auto parsed = parse(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) { return train(*parsed, world); });
}

}  // namespace ratplus::apps
