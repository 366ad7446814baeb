// ratplus train: pretrain or adapt a model, as a job file says.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>

#include "apps/command_line.h"
#include "apps/commands.h"
#include "apps/format.h"
#include "apps/output.h"
#include "apps/progress_line.h"
#include "apps/settle.h"
#include "apps/start_notes.h"
#include "apps/train_display.h"
#include "apps/with_ranks.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/stop_signal.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/model/parameters.h"
#include "lib/report/chart.h"
#include "lib/run/run_end.h"
#include "lib/run/run_traces.h"
#include "lib/session/start_defaults.h"
#include "lib/train/finite_weights.h"
#include "lib/train/found_run.h"
#include "lib/train/hosts_alike.h"
#include "lib/train/last_weights.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* train_help = R"(usage: ratplus train JOB.toml [--set section.key=value ...] [--resume]
       mpirun -n 8 ratplus train JOB.toml ...          (or srun: the same command)

Trains the model that a job file describes, on as many MPI ranks as it is started with:
  kind = "pretrain"   from initial weights; recipe = "joint" makes two updates on every batch,
                      a sparse one (job.joint_pattern) and one with job.pattern; "plain" one
  kind = "adapt"      from the weights of job.from (a checkpoint, a run, a .pth file, safetensors),
                      with job.pattern, a fresh optimizer
                      (default: the pattern and the model of these weights)
  kind = "finetune"   the same on samples with labels of their own (made by `ratplus samples`)
All output goes to job.directory: job.toml (the effective job), log.txt, metrics.jsonl,
checkpoints/, loss.svg, and starts/ (program, libraries, hosts and environment of every start).
Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 or SIGXCPU to a rank finishes the step, saves and ends
with status 75;
the same command with --resume continues from the newest checkpoint, bit for bit. A second Ctrl-C,
2 seconds later, ends at once. --stop-after N does the same after N steps, with status 0, and
leaves the schedule as it is.
A loss or a gradient norm that is not finite stops the job with status 3, the state before that
update saved (health.not_finite; docs/health.md). Ranks whose copies of the state differ stop it
with status 4, nothing saved (health.differing).
mpirun kills its ranks a second after its own Ctrl-C or SIGTERM, but passes SIGUSR1 on: stop a
job by `kill -USR1` of mpirun, and set checkpoint.every against other failures.

)";

constexpr const char* train_help_end = R"(
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
  std::int64_t stop_after = 0;
};

/// Empty when help was asked for and given.
std::optional<TrainArguments> parse_train(const Arguments& args) {
  TrainArguments parsed;
  po::options_description options("options");
  auto add = options.add_options();
  add("set", po::value(&parsed.overrides)->composing()->multitoken()->value_name("SECTION.KEY=VALUE"),
      "override a key of the job file; the value is TOML, a bare word is a string");
  add("resume", po::bool_switch(&parsed.resume),
      "resume from the newest checkpoint in job.directory, or begin at the start without one");
  add("stop-after", po::value<std::int64_t>()->value_name("N")->notifier([&](std::int64_t steps) {
    if (steps < 1) throw po::error("--stop-after takes a number of steps, 1 or more");
    parsed.stop_after = steps;
  }),
      "save and end after N steps of this start, if the schedule does not end before");
  add("print-config", po::bool_switch(&parsed.print_config), "print the whole effective job and end");
  const Positional job{"job", 1, po::value(&parsed.job),
                       "a job file is missing (give it before --set, which takes all words that follow)",
                       "JOB.toml"};
  if (!parse_command_line(args, options, job, {train_help, train_help_end})) return std::nullopt;
  return parsed;
}

/// What the job finds in its run directory; verifying a large checkpoint shows how far it has come.
train::FoundRun find_run(const config::JobConfig& job, bool resume, const parallel::World& world,
                         train::Verify verify) {
  ProgressLine progress;
  std::int64_t read = 0;
  return train::find_run(
      job, resume, world,
      [&](std::int64_t bytes) {
        read += bytes;
        constexpr std::int64_t worth_saying = std::int64_t{1} << 30;
        if (world.root() && read > worth_saying)
          progress.update(fmt::format("verifying the newest checkpoint: {}", format_bytes(read)));
      },
      verify);
}

/// Draws the loss curves; a failure is reported, but does not fail the run.
void draw_losses(const std::filesystem::path& run, TrainDisplay& display) {
  try {
    report::write_loss_chart({run}, run / "loss.svg");
  } catch (const Error& error) {
    display.say(fmt::format("no picture of the losses: {}", error.what()));
  }
}

/// The last weights as safetensors, where the job asks for them.
void export_weights(const config::JobConfig& job, const parallel::World& world) {
  ProgressLine progress;
  std::int64_t done = 0;
  const auto file = train::export_last_weights(job, world, [&](std::int64_t bytes) {
    done += bytes;
    progress.update(fmt::format("exporting {}: {} of {}", train::last_weights_file(job).string(),
                                format_bytes(done), format_bytes(4 * model::parameter_count(job.model))));
  });
  if (!file || !world.root()) return;
  progress.finish();
  progress.print(fmt::format("weights: {} ({})", file->string(), to_string(job.checkpoint.export_type)));
}

/// What to do after an update that is not finite; `good`: the weights of the state before it, which is saved, are.
std::string way_on(const config::HealthSection& health, const std::string& checkpoint, bool good) {
  if (good) {
    const bool skips = health.not_finite == config::NotFinite::skip;
    return fmt::format(
        ". The last good state is in {}: --resume continues from it, and with --set {}; or begin a run from "
        "it, or where it stops there again from an earlier one, with a lower schedule.peak_lr "
        "(job.kind=adapt "
        "job.from=...)",
        checkpoint,
        skips
            ? fmt::format("health.max_skips above {} leaves more such updates in a row out", health.max_skips)
            : "health.not_finite=skip leaves such updates out");
  }
  return fmt::format(
      ". Weights were not finite before it, in the state that is saved in {}, and no run continues from "
      "them: "
      "go back to a checkpoint before it, or begin anew, with a lower schedule.peak_lr, "
      "optimizer.weight_decay or model.init_std",
      checkpoint);
}

/// The status of the command.
int run_to_its_end(train::Trainer& trainer, const config::JobConfig& job, const parallel::World& world,
                   TrainDisplay& display, StartNotes& notes, std::int64_t stop_after) {
  using How = run::RunEnd::How;
  const StopSignal signal;  // what comes after the last save is not to be cut short by a second signal
  const auto outcome = trainer.run(stop_after);
  const auto unwritten = lost_lines(&trainer, display);
  if (!unwritten.empty()) display.fail(unwritten + "; these lines are lost");
  run::RunEnd end{.step = trainer.step(),
                  .checkpoint = checkpoint::step_directory(job.job.directory, trainer.step()).string()};
  const auto note = [&](How how) {
    end.how = how;
    if (!unwritten.empty()) end.message += (end.message.empty() ? "" : "; ") + unwritten;
    if (world.root()) notes.end(end);
  };
  if (outcome == train::Outcome::not_finite) {
    end.message = trainer.stop_reason();
    const bool good = train::weights_are_finite(trainer.session());
    if (!good) end.message += "; the weights were not finite before it";
    note(How::not_finite);
    display.fail(trainer.stop_reason() + way_on(job.health, end.checkpoint, good));
    return exit_not_finite;
  }
  if (outcome == train::Outcome::differing) {
    end.message = trainer.stop_reason();
    end.checkpoint.clear();
    note(How::failed);
    display.fail(trainer.stop_reason());
    return exit_differing;
  }
  if (outcome == train::Outcome::interrupted) {
    const bool asked_for = trainer.stop_signal() == 0;
    end.signal =
        asked_for ? fmt::format("--stop-after {}", stop_after) : name_of_signal(trainer.stop_signal());
    note(How::stopped);
    display.say(
        fmt::format("stopped by {} after step {}; continue with --resume", end.signal, trainer.step()));
    return asked_for ? 0 : exit_interrupted;
  }
  try {
    export_weights(job, world);
  } catch (const parallel::AgreedError& error) {
    const auto stopped_by = static_cast<int>(world.max(std::int64_t{StopSignal::received()}));
    if (stopped_by == 0) throw;
    end.signal = name_of_signal(stopped_by);
    note(How::stopped);
    display.say(error.what());
    return exit_interrupted;
  }
  if (world.root()) draw_losses(job.job.directory, display);
  note(How::finished);  // last: a run that is recorded as finished lacks nothing
  display.say(fmt::format("done: {}", job.job.directory));
  return 0;
}

/// Seconds in which the ranks must find each other: parallel.timeout, but launchers need some to start all of them. What is
/// wrong with the job is reported once they have.
double connect_timeout(config::JobFileText& job, const TrainArguments& args) {
  constexpr double least = 20;
  try {
    return std::max(job.load(args.overrides).parallel.timeout, least);
  } catch (const Error&) {
    return parallel::Watchdog::default_timeout;
  }
}

/// Makes this job the run directory's only one, on the root. False where another start has been there since it was looked at.
bool take_run_directory(std::optional<run::RunDirectory>& run, const config::JobConfig& job,
                        const run::RunTraces& found, const parallel::World& world) {
  std::int64_t changed = 0;
  world.agree([&] {
    if (!world.root()) return;
    try {
      run.emplace(job, found);
    } catch (const run::RunChanged&) {
      changed = 1;
    }
  });
  return world.max(changed) == 0;
}

/// What becomes of a job that found its data and its start, in a run directory that is its own: the status of the command;
/// none where the checkpoint that was to be verified while it was loaded is damaged. A failure on the way is recorded in the run.
std::optional<int> train_in(run::RunDirectory* run, const config::JobConfig& job, const TrainArguments& args,
                            const train::FoundRun& found, const std::string& settled,
                            const train::TrainingData& dataset, const train::StartingPoint& start,
                            const parallel::World& world) {
  TrainDisplay display(job, world, run);
  StartNotes notes(job, world, display);
  std::optional<train::Trainer> trainer;
  const auto reached = [&] { return trainer ? &*trainer : nullptr; };
  try {
    train::require_shared_directories(job, world);
    if (!settled.empty()) display.say(settled);
    for (const auto& line : train::set_aside(found, world)) display.say(line);
    if (found.verified_bytes > 0) {
      display.say(fmt::format("verified {} of checkpoints in {}", format_bytes(found.verified_bytes),
                              format_duration(found.verified_seconds)));
    }
    for (const auto& note : train::start_notes(job, args.resume, found, start)) display.say(note);
    trainer.emplace(job, world, dataset, start, display);
    if (!trainer->damage().empty()) return std::nullopt;
    if (world.root()) {
      const auto recorded = std::max(trainer->told_step(), run::step_saved_at_end(job.job.directory));
      if (const auto note = train::missing_checkpoint_note(found, recorded); !note.empty()) display.say(note);
    }
    std::optional<std::filesystem::path> weights_from;
    if (start.checkpoint) weights_from = start.checkpoint->directory;
    notes.begin(*trainer, weights_from);
    return run_to_its_end(*trainer, job, world, display, notes, args.stop_after);
  } catch (const parallel::AgreedError& error) {
    if (world.root()) notes.failure(reached(), error.what());
    throw;
  } catch (const std::exception& error) {  // of this rank alone
    notes.failure(reached(), error.what());
    throw;
  }
}

/// The status of the command; none where what the run directory holds is to be looked at again: the checkpoint that was to
/// be verified while it was loaded is damaged, or another start has been there meanwhile.
std::optional<int> train(config::JobFileText& file, const TrainArguments& args, const parallel::World& world,
                         train::Verify verify) {
  config::JobConfig job;
  world.agree([&] { job = file.load(args.overrides, session::start_defaults); });
  train::require_same_job(job, world);
  // For what the root does alone, too; less than the default holds from the session on.
  world.watchdog().set_timeout(std::max(job.parallel.timeout, parallel::Watchdog::default_timeout));
  if (world.root()) print_renamed_keys(job);
  if (args.print_config) {
    if (world.root()) fmt::print("{}", config::to_toml(job));
    return 0;
  }
  const auto settled = settle(std::move(job), world);
  job = train::complete_schedule(settled.job, world);
  run::RunTraces traces;
  world.agree([&] {
    if (!world.root()) return;
    run::check_directories(job);
    traces = run::traces_of(job.job.directory);
  });
  const auto found_run = find_run(job, args.resume, world, verify);
  const auto& found = found_run.state;
  if (found.finished && train::is_complete(job, world)) {
    if (world.root()) {
      fmt::print("{}: finished already, {} of {} steps ({})\n", job.job.directory, found.step,
                 job.schedule.steps, found.checkpoint->string());
    }
    export_weights(job, world);
    return 0;
  }
  const auto dataset = train::open_data(job, world);  // before anything is written
  auto start = train::find_start(job, dataset, world, found.checkpoint);
  start.unverified = found_run.unverified;
  std::optional<run::RunDirectory> run;
  if (!take_run_directory(run, job, traces, world)) return std::nullopt;
  return train_in(run ? &*run : nullptr, job, args, found_run, settled.note, dataset, start, world);
}

}  // namespace

int train_command(const Arguments& args) {
  const auto parsed = parse_train(args);
  if (!parsed) return 0;
  if (parsed->print_config && !launched()) {  // on the login node of a cluster, where MPI may not start
    const auto job = config::load_job(parsed->job, parsed->overrides, session::start_defaults);
    print_renamed_keys(job);
    fmt::print("{}", config::to_toml(job));
    return 0;
  }
  if (!parsed->print_config) forget_output();  // the run directory has everything
  ignore_lost_readers();
  // Until the first step there is nothing to save; from then on the trainer finishes its step first.
  EndOnSignal before_the_first_step(
      exit_interrupted,
      first_of_job() ? "ratplus: stopped by a signal while no step was under way; continue with --resume\n"
                     : nullptr);
  config::JobFileText job(parsed->job);  // read before the ranks meet, and after it
  const auto on_a_rank = [&](const parallel::World& world) {
    const EndOnSignal::Mark mark(world.watchdog().stopped());
    try {
      auto status = train(job, *parsed, world, train::Verify::while_loading);
      // All checkpoints are verified now, and the newest whole one is taken.
      for (int times = 0; !status && times < 3; ++times)
        status = train(job, *parsed, world, train::Verify::now);
      if (status) return *status;
      throw parallel::AgreedError(
          "other starts train in the run directory whenever this one is to begin; wait for "
          "them, or choose another with --set job.directory=...");
    } catch (...) {
      before_the_first_step.already_ending(1);
      throw;
    }
  };
  return with_ranks(on_a_rank, connect_timeout(job, *parsed));
}

}  // namespace ratplus::apps
