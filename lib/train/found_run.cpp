#include "lib/train/found_run.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/units.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/run/run_end.h"
#include "lib/session/start_defaults.h"
#include "lib/weights/source.h"

namespace ratplus::train {

namespace {

/// Takes the newest checkpoint as it is, by its manifest. False where there is none, where it cannot be read, and where it
/// is a finished run's, which is not loaded.
bool newest_to_load(const config::JobConfig& job, const parallel::World& world, FoundRun& found) {
  auto& state = found.state;
  const auto chosen = world.from_root([&] {
    try {
      state = run::look_at_run(job, true, checkpoint::newest(job.job.directory));
      if (state.checkpoint)
        checkpoint::bytes_of(checkpoint::read_info(*state.checkpoint));  // all files, of their sizes
    } catch (const Error&) {                                             // is told once all are verified
      return std::string();
    }
    return state.checkpoint && !state.finished ? state.checkpoint->string() : std::string();
  });
  if (chosen.empty()) {
    found = {};
    return false;
  }
  state.checkpoint = chosen;
  state.step = world.max(state.step);
  found.unverified = true;
  return true;
}

}  // namespace

FoundRun find_run(const config::JobConfig& job, bool resume, const parallel::World& world,
                  const checkpoint::VerifyProgress& progress, Verify verify) {
  world.agree([&] {
    if (!world.root()) return;
    run::check_directories(job);
    if (resume) run::check_resumable(job);
  });
  FoundRun found;
  if (resume && verify == Verify::while_loading && newest_to_load(job, world, found)) return found;
  std::optional<std::filesystem::path> checkpoint;
  if (resume) {
    const ElapsedTime elapsed;
    std::int64_t read = 0;
    auto whole = checkpoint::newest_whole(job.job.directory, world, [&](std::int64_t bytes) {
      read += bytes;
      if (progress) progress(bytes);
    });
    checkpoint = whole.newest;
    found.damaged = std::move(whole.damaged);
    found.verified_bytes = world.sum(read);
    found.verified_seconds = elapsed.seconds();
  }
  auto& state = found.state;
  const auto chosen = world.from_root([&] {
    if (!resume) checkpoint = checkpoint::newest(job.job.directory);
    state = run::look_at_run(job, resume, checkpoint);
    return state.checkpoint ? state.checkpoint->string() : std::string();
  });
  if (!chosen.empty()) state.checkpoint = chosen;
  state.step = world.max(state.step);
  state.finished = world.max(std::int64_t{state.finished}) != 0;
  return found;
}

std::vector<std::string> set_aside(const FoundRun& found, const parallel::World& world) {
  std::vector<std::string> lines;
  for (const auto& damaged : found.damaged) {
    world.agree([&] {
      if (world.root()) checkpoint::set_aside(damaged.directory);
    });
    lines.push_back(damaged.reason);
    lines.push_back(fmt::format("{} is not whole: renamed to {}.damaged, and the one before it is taken, {}",
                                damaged.directory.string(), damaged.directory.filename().string(),
                                found.state.checkpoint->string()));
  }
  return lines;
}

std::string missing_checkpoint_note(const FoundRun& found, std::int64_t recorded_step) {
  if (!found.state.checkpoint || !found.damaged.empty() || recorded_step <= found.state.step) return {};
  return fmt::format(
      "warning: the run records a checkpoint of step {}, and the newest one here is of step {}: are all file "
      "systems "
      "mounted? Training resumes from the older one",
      recorded_step, found.state.step);
}

std::vector<std::string> start_notes(const config::JobConfig& job, bool resume, const FoundRun& found,
                                     const StartingPoint& start) {
  std::vector<std::string> notes;
  const auto& state = found.state;
  if (resume && !state.checkpoint)
    notes.emplace_back("no checkpoint to resume from: starting at the beginning");
  if (start.checkpoint && !start.resume) {
    if (const auto note = session::other_pattern_note(*start.checkpoint, job.job.pattern); !note.empty())
      notes.push_back("warning: " + note);
  }
  if (!start.same_data) {
    notes.emplace_back(
        "the checkpoint or the dataset is of an older version and has no checksum of the tokens: that the "
        "data are "
        "the same is known by their sizes alone");
  }
  if (start.checkpoint && start.checkpoint->tokenizer.empty()) {
    notes.push_back(fmt::format(
        "{} does not say which tokenizer its weights were trained with: that of {} is taken to be "
        "it",
        start.checkpoint->directory.string(), job.data.directory));
  }
  return notes;
}

bool is_complete(const config::JobConfig& job, const parallel::World& world) {
  return world.from_root([&] {
    const auto end = run::read_run_end(job.job.directory);
    return std::string(end && end->how == run::RunEnd::How::finished ? "yes" : "");
  }) == "yes";
}

Outlook look_ahead(const config::JobConfig& job, const TrainingData& data, bool waits) {
  run::check_directories(job);
  const auto present = checkpoint::newest_present(job.job.directory);
  const auto state = run::look_at_run(
      job, true, present ? std::optional(present->directory) : checkpoint::newest(job.job.directory));
  if (state.checkpoint) {
    look_at_start(job, data, *state.checkpoint, true);
    const char* text = state.finished ? "{} of {} steps" : "resumes at step {} of {}";
    return {state.finished, fmt::format(fmt::runtime(text), state.step, job.schedule.steps)};
  }
  const std::string length = counted(job.schedule.steps, "step");
  if (job.job.kind == config::Kind::pretrain) return {false, length + " from initial weights"};
  // The run that is waited for has a directory since it was submitted, and a checkpoint only later.
  if (waits && !weights::find(job.job.from)) {
    return {false, fmt::format("{} from {}, which is not there yet and will be checked when the job starts",
                               length, job.job.from)};
  }
  const auto from = weights::resolve(job.job.from);
  look_at_start(job, data, from, false);
  return {false, fmt::format("{} from {}", length, from.string())};
}

}  // namespace ratplus::train
