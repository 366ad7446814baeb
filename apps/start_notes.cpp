#include "apps/start_notes.h"

#include <fmt/core.h>

#include <exception>
#include <system_error>

#include "apps/output.h"
#include "apps/version.h"
#include "lib/run/run_record.h"
#include "lib/run/start_files.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;

/// Records a start that came to no step, where it is not recorded yet.
void note_start(const fs::path& file, const config::JobConfig& job, const parallel::World& world) noexcept {
  try {
    std::error_code ignored;
    if (!fs::exists(file, ignored)) run::record_failed_start(file, this_program(), job, world);
  } catch (const std::exception& error) {
    print_error(fmt::format("warning: this start is not recorded: {}", error.what()));
  }
}

}  // namespace

StartNotes::StartNotes(const config::JobConfig& job, const parallel::World& world, TrainDisplay& display)
    : job_(job), world_(world), display_(display) {
  file_ = world.from_root([&] { return run::next_start_file(job.job.directory).string(); });
  world.watchdog().before_end([file = file_, job, &world](const std::string& message) {
    note_start(file, job, world);
    note_end(file, {.how = run::RunEnd::How::failed, .message = message});
  });
}

void StartNotes::begin(train::Trainer& trainer, const std::optional<fs::path>& weights_from) {
  file_ = run::record_start({this_program(), trainer.step(), weights_from}, job_, trainer.session());
  begun_ = true;
  world_.watchdog().before_end([file = file_](const std::string& message) {
    note_end(file, {.how = run::RunEnd::How::failed, .message = message});
  });
}

void StartNotes::failure(train::Trainer* trainer, const std::string& message) noexcept {
  display_.log(message);
  std::string lost;
  try {
    lost = lost_lines(trainer, display_);
  } catch (const std::exception& error) {
    lost = error.what();
  }
  if (!begun_) note_start(file_, job_, world_);
  run::RunEnd end{.how = run::RunEnd::How::failed, .message = lost.empty() ? message : message + "; " + lost};
  if (trainer != nullptr) end.step = trainer->step();
  note_end(file_, end);
}

void StartNotes::note_end(const fs::path& start_file, const run::RunEnd& end) noexcept {
  try {
    run::write_run_end(start_file, end);
  } catch (const std::exception& error) {
    print_error(fmt::format("warning: the end of this start is not recorded: {}", error.what()));
  }
}

std::string lost_lines(train::Trainer* trainer, const TrainDisplay& display) {
  const auto metrics = trainer == nullptr ? std::string() : trainer->unwritten();
  return metrics.empty() ? display.unwritten() : metrics;
}

}  // namespace ratplus::apps
