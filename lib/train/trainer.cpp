#include "lib/train/trainer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <exception>
#include <future>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

#include "base/background_thread.h"
#include "base/error.h"
#include "base/resident_memory.h"
#include "base/start_thread.h"
#include "base/stop_signal.h"
#include "kernels/datasheet.h"
#include "lib/checkpoint/verify.h"
#include "lib/model/config_fields.h"
#include "lib/model/mixers.h"
#include "lib/model/operations.h"
#include "lib/optim/schedule.h"
#include "lib/train/found_run.h"
#include "lib/train/update.h"
#include "lib/weights/source.h"

namespace ratplus::train {
namespace {

/// Seconds of a clock that never goes back.
double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Names the keys of [model] in which a checkpoint differs.
void check_same_model(const checkpoint::Info& info, const model::ModelConfig& wanted) {
  std::string differences;
  const auto text_of = [](const model::ModelConfig& model, auto member) {
    if constexpr (std::is_same_v<decltype(member), std::vector<model::MixerConfig> model::ModelConfig::*>) {
      return model::describe_mixers(model);
    } else {
      return fmt::format("{}", model.*member);
    }
  };
  model::for_each_member([&](const char* key, auto member, const auto&, model::FieldUse use) {
    if (use != model::FieldUse::weights || wanted.*member == info.model.*member) return;
    differences += fmt::format("{}model.{} = {}, it has {}", differences.empty() ? "" : "; ", key,
                               text_of(wanted, member), text_of(info.model, member));
  });
  if (differences.empty()) return;
  fail("{}: holds another model than the job's: {}; change the job's [model] section, or leave it out",
       info.directory.string(), differences);
}

data::BatchShape batch_shape(const config::JobConfig& job, const parallel::World& world) {
  return {.batch = job.data.batch,
          .micro_batch = job.data.micro_batch,
          .sequence_length = job.data.sequence_length,
          .ranks = world.size(),
          .rank = world.rank()};
}

/// As a checkpoint keeps them.
std::vector<checkpoint::UpdateDone> updates_done(const std::vector<run::UpdateMetrics>& updates) {
  std::vector<checkpoint::UpdateDone> done;
  for (const auto& update : updates) done.push_back({update.loss, update.gradient_norm, update.updated});
  return done;
}

TestFault test_fault(const parallel::World& world) {
  std::optional<TestFault> fault;
  world.agree([&] { fault.emplace(world.rank()); });
  return *fault;
}

}  // namespace

StartingPoint find_start(const config::JobConfig& job, const TrainingData& data, const parallel::World& world,
                         const std::optional<std::filesystem::path>& resume) {
  if (!resume && job.job.kind == config::Kind::pretrain) return {};
  const auto directory =
      world.from_root([&] { return (resume ? *resume : weights::resolve(job.job.from)).string(); });
  StartingPoint start;
  world.agree([&] { start = look_at_start(job, data, directory, resume.has_value()); });
  return start;
}

StartingPoint look_at_start(const config::JobConfig& job, const TrainingData& data,
                            const std::filesystem::path& directory, bool resume) {
  const auto info = weights::open_source(directory, job.model)->info();
  check_same_model(info, job.model);
  checkpoint::check_same_tokenizer(info, data.sources.front().directory, data.manifest);
  const bool same_data = !resume || checkpoint::check_same_data(info, data.manifest);
  return {.checkpoint = info, .resume = resume, .same_data = same_data};
}

Trainer::Trainer(const config::JobConfig& job, const parallel::World& world, TrainingData data,
                 const StartingPoint& start, TrainListener& listener)
    : job_(job),
      world_(world),
      listener_(listener),
      data_(std::move(data)),
      updates_(session::updates(job)),
      session_(session::session_settings(job), world),
      fault_(test_fault(world)),
      skips_(job.health, updates_.size()),
      copies_(session_.ops(), session_.store(), session_.optimizer(), world),
      job_text_(config::to_toml(job)),
      background_save_(world),
      // Where the only save is the last, nothing goes on beside it.
      save_in_background_(job.checkpoint.background && job.checkpoint.every > 0 &&
                          background_save_.prepare(session_.store(), session_.ops().device())) {
  load(start);
  if (!damage_.empty()) return;
  for (const auto& update : updates_) {
    update_operations_.push_back(model::update_operations(job.model, update.pattern,
                                                          parallel::parameter_count(session_.store().units()),
                                                          job.data.batch, job.data.sequence_length));
    operations_ += update_operations_.back();
  }
  auto hosts = world.all(world.host());
  if (world.root()) health_.emplace(job.health, std::move(hosts));
  world.agree([&] {
    validator_ = std::make_unique<evaluation::Validator>(
        validation_samples(job, data_), job.log.validation_sequences,
        data_.manifest.sample_length > 0 ? evaluation::Validated::labelled : evaluation::Validated::text,
        world);
  });
  validator_->check();
  open_outputs();
}

/// The loader and the files of metrics, at the present step.
void Trainer::open_outputs() {
  world_.agree([&] {
    loader_.reset();
    loader_ = std::make_unique<data::Loader>(fault_.wrap(training_samples(job_, data_), job_.data.batch),
                                             batch_shape(job_, world_), step_, job_.schedule.steps,
                                             job_.data.prefetch);
    if (!world_.root()) return;
    tensorboard_.reset();
    metrics_.reset();
    if (job_.log.tensorboard) tensorboard_.emplace(job_.job.directory, step_);
    metrics_.emplace(job_.job.directory, step_, begun_.size());
  });
}

void Trainer::load(const StartingPoint& start) {
  if (!start.checkpoint) {
    session_.set_initial_weights(job_.job.seed);
    return;
  }
  const auto& info = *start.checkpoint;
  const double began = now();
  try {
    load_state(start);
  } catch (const parallel::AgreedError& error) {
    if (!start.unverified) throw;
    damage_ = error.what();
    return;
  }
  session_.store().publish_masters();
  if (!world_.root()) return;
  const auto numbers = parallel::parameter_count(session_.store().units()) * (start.resume ? 3 : 1);
  listener_.on_load({.path = info.directory.string(),
                     .bytes = numbers * static_cast<std::int64_t>(sizeof(float)),
                     .seconds = now() - began,
                     .verified = start.unverified});
}

/// Reads weights, and moments of a resumed run; where the checkpoint is not verified yet, this rank's share of its files is
/// compared with their checksums by a thread beside, so that both have each byte of one reading of the disk.
void Trainer::load_state(const StartingPoint& start) {
  const auto& info = *start.checkpoint;
  std::future<void> verified;
  world_.agree([&] {
    if (!start.unverified) return;
    verified = start_async([&] {
      leave_signals_to_main_thread();
      checkpoint::verify_share(info, world_);
    });
  });
  world_.agree([&] {
    if (!start.resume) {
      weights::load(*weights::open_source(info.directory, job_.model), session_.store(), session_.ops());
      return;
    }
    checkpoint::load_weights(info, session_.store(), session_.ops());
    checkpoint::load_optimizer(info, session_.store(), session_.optimizer(), session_.ops());
    step_ = info.step;
    if (info.begun.size() >= updates_.size()) {
      fail("{}: holds {} updates of a step, of which the job makes {}; the manifest is damaged",
           info.directory.string(), info.begun.size(), updates_.size());
    }
    skips_.resume(info.left_out);
    for (const auto& update : info.begun)
      begun_.push_back({updates_[begun_.size()].name, update.loss, update.gradient_norm, update.updated});
    saved_step_ = step_;
  });
  world_.watchdog().at("verifying", info.directory.filename().string());
  world_.agree([&] {
    if (verified.valid()) verified.get();
  });
}

double share_ahead(std::span<const double> updates, std::size_t done) {
  const double all = std::accumulate(updates.begin(), updates.end(), 0.0);
  return std::accumulate(updates.begin() + static_cast<std::ptrdiff_t>(done), updates.end(), 0.0) / all;
}

Outcome Trainer::run(std::int64_t most_steps) {
  const StopSignal signal;
  first_step_ = step_;
  stop_step_ = most_steps > 0 && most_steps < job_.schedule.steps - step_ ? step_ + most_steps : 0;
  pace_.started = now();
  if (world_.root()) listener_.on_start(session_, step_);
  try {
    return train();
  } catch (const parallel::AgreedError& error) {
    throw parallel::AgreedError(error.what() + keep_progress());
  }
}

/// After an error that all ranks know of: saves what was trained since the last save, where the state is that of whole
/// updates. Returns what to add to the error's message.
std::string Trainer::keep_progress() {
  if (updating_ || saving_failed_ || (step_ == first_step_ && begun_.empty())) return "";
  if (const auto found = differences(); !found.empty())
    return fmt::format("; the state after step {} is not saved, since ranks hold different copies: {}", step_,
                       found);
  try {
    save();
    go_on_saving(true);
  } catch (const parallel::AgreedError& error) {
    return fmt::format("; the state after step {} could not be saved either: {}", step_, error.what());
  }
  return fmt::format("; the state after step {} is saved: --resume continues from it", step_);
}

Outcome Trainer::train() {
  const auto due = [&](std::int64_t every) { return step_ > 0 && every > 0 && step_ % every == 0; };
  while (true) {
    const bool last = step_ == job_.schedule.steps;
    const bool stop = stop_requested() || (stop_step_ > 0 && step_ >= stop_step_);
    const bool saves = due(job_.checkpoint.every) || last || (stop && step_ > first_step_);
    if ((saves || due(job_.health.compare_every)) && step_ > compared_step_ && step_ > first_step_) {
      if (!alike_or_back()) return Outcome::differing;
      if (compared_step_ != step_) continue;  // back at an earlier one
    }
    // Saving comes first: nothing that follows can lose the step.
    if (saves) save();
    if (last || stop) go_on_saving(true);
    if (stop && !last) return Outcome::interrupted;
    // A run that was stopped before its validation makes up for it when it is resumed. Not with updates of the next
    // step already made: its weights are no longer those of this step.
    if (begun_.empty() && (due(job_.log.validate_every) || last) && !validate()) {
      if (last) return Outcome::interrupted;
      continue;
    }
    if (last) return Outcome::finished;
    if (saved_step_ == step_ && stop_requested()) continue;  // a signal while this step was saved
    const double began = now();
    const double waited = world_.watchdog().waited_seconds();
    const double share = share_ahead(update_operations_, begun_.size());
    auto metrics = train_step();
    if (!metrics) {
      // Numbers that are not finite may come of a copy that has gone bad.
      compared_step_ = -1;
      if (!alike_or_back()) return Outcome::differing;
      if (compared_step_ != step_) continue;
      save();
      go_on_saving(true);
      return Outcome::not_finite;
    }
    pace_.training += now() - began;
    pace_.for_ranks += world_.watchdog().waited_seconds() - waited;
    pace_.steps += share;
    report(std::move(*metrics));
    go_on_saving(false);
  }
}

/// Describes what ranks hold differently; empty where they hold the same, and where nothing is compared.
std::string Trainer::differences() {
  if (job_.health.compare_every == 0 || !copies_.any()) return "";
  const std::vector<CommonValue> values = {
      common("the step", step_),
      common("the updates begun of the next step", std::ssize(begun_)),
      common("the optimizer's count of updates", session_.optimizer().updates()),
      common("the data's position (step of the last batch)", batch_step_),
      common("the job and the seed of its random numbers", job_text_),
      common("the loss of the last update", last_update_.empty() ? 0 : last_update_[0]),
      common("the summed gradient's norm", last_update_.empty() ? 0 : last_update_[1]),
      common("the learning rate", last_update_.empty() ? 0 : last_update_[2]),
  };
  const auto found = copies_.compare(values, gradient_is_finite_);
  return found.empty() ? "" : describe(found, copies_.hosts());
}

/// Compares what ranks hold alike. Where they differ, goes back to the newest checkpoint, if the job asks for that; false
/// where training is to end: without a checkpoint, or where training has come back to that checkpoint before.
bool Trainer::alike_or_back() {
  const auto found = differences();
  if (found.empty()) {
    compared_step_ = step_;
    return true;
  }
  go_on_saving(true);  // of a state that was compared
  const auto what =
      fmt::format("step {}: ranks hold different copies of what is to be alike: {}", step_, found);
  auto whole = checkpoint::newest_whole(job_.job.directory, world_);
  const auto newest = whole.newest;
  const auto place = newest ? newest->string() : std::string();
  const bool wanted = job_.health.differing == config::Differing::go_back;
  std::optional<checkpoint::Info> info;
  if (newest && wanted) world_.agree([&] { info = checkpoint::read_info(*newest); });
  if (!info || info->step == went_back_to_ || info->step > step_) {
    const char* way_out =
        newest ? "the last checkpoint, {}, was compared before it was written: --resume continues "
                 "from it, better without the host of the rank in the minority"
               : "there is no checkpoint yet, so the run begins anew{}";
    stop_reason_ = fmt::format("{}. A memory, a processor or a link is at fault, so nothing was saved; {}",
                               what, fmt::format(fmt::runtime(way_out), place));
    if (wanted && newest)
      stop_reason_ +=
          fmt::format("; training had already continued from step {} after a difference", info->step);
    return false;
  }
  const FoundRun passed_over{.state = {.checkpoint = newest}, .damaged = std::move(whole.damaged)};
  const auto lines = set_aside(passed_over, world_);
  if (world_.root()) {
    listener_.on_warning(fmt::format("{}. Training continues from {}", what, place));
    for (const auto& line : lines) listener_.on_warning(line);
    metrics_->retry();
  }
  const run::DifferingMetrics noted{.step = info->step, .found = step_, .difference = found};
  went_back_to_ = info->step;
  begun_.clear();
  load({.checkpoint = info, .resume = true});
  compared_step_ = -1;
  batch_step_ = -1;
  last_update_.clear();
  gradient_is_finite_ = false;
  first_step_ = std::min(first_step_, step_);
  pace_.training = pace_.steps = pace_.waited = pace_.for_ranks = 0;
  open_outputs();
  world_.agree([&] {
    if (world_.root()) metrics_->write(noted);
  });
  return true;
}

/// Whether any rank was asked to stop: all ranks decide alike.
bool Trainer::stop_requested() {
  stop_signal_ = static_cast<int>(world_.max(std::int64_t{StopSignal::received()}));
  return stop_signal_ != 0;
}

/// The updates of a step; those that a checkpoint of its middle holds are not made again. Nothing where one of them is to
/// stop the job: then the state is that before it.
std::optional<run::StepMetrics> Trainer::train_step() {
  const data::StepBatch* batch = nullptr;
  world_.watchdog().at("reading the batch");
  // A shard that one rank cannot read ends all, with one message.
  world_.agree([&] { batch = &loader_->next(); });
  batch_step_ = batch->step;
  const auto counted = world_.sum(batch->counted);
  const double lr = optim::learning_rate(session::schedule_of(job_), step_);
  if (counted == 0) leave_out_step();
  while (begun_.size() < updates_.size()) {
    if (!train_update(*batch, counted, lr)) return std::nullopt;
  }
  session_.ops().synchronize();  // the step's time is all its work's
  ++step_;
  fault_.flip_a_bit(step_, session_);
  run::StepMetrics metrics;
  metrics.updates = std::exchange(begun_, {});
  metrics.skipped_updates =
      step_ * static_cast<std::int64_t>(updates_.size()) - session_.optimizer().updates();
  metrics.step = step_;
  metrics.steps = job_.schedule.steps;
  metrics.tokens = step_ * job_.tokens_per_step();
  metrics.learning_rate = lr;
  return metrics;
}

/// A batch that predicts nothing has no loss and no gradient: its updates are left out, and the schedule goes on.
void Trainer::leave_out_step() {
  while (begun_.size() < updates_.size()) {
    begun_.push_back({updates_[begun_.size()].name, std::numeric_limits<double>::quiet_NaN(),
                      std::numeric_limits<double>::quiet_NaN(), false});
  }
  if (!world_.root()) return;
  listener_.on_warning(fmt::format(
      "step {}: no position of its batch counts (every input is the end-of-text token, or no label is to be "
      "predicted), so no update is made; look at {} with `ratplus inspect`",
      step_ + 1, job_.data.all_sources().front().directory));
}

/// The step's next update. False where it is to stop the job.
bool Trainer::train_update(const data::StepBatch& batch, std::int64_t counted, double lr) {
  const auto number = begun_.size();
  const auto& update = updates_[number];
  updating_ = true;
  const auto result = run_update(session_.parts(), update.pattern, {batch.inputs, batch.labels}, counted, lr,
                                 fault_.in_update(step_ + 1, number));
  updating_ = false;
  last_update_ = {result.loss, result.gradient_norm, lr};
  gradient_is_finite_ = result.updated;
  const run::UpdateMetrics metrics{update.name, result.loss, result.gradient_norm, result.updated};
  const bool stop = skips_.stops(number, result.updated);
  if (!result.updated) record_not_finite(metrics, result.loss_sum, lr, stop);
  if (!stop) begun_.push_back(metrics);
  return !stop;
}

void Trainer::record_not_finite(const run::UpdateMetrics& left_out, double loss_sum, double lr, bool stop) {
  const std::filesystem::path run = job_.job.directory;
  const auto shape = batch_shape(job_, world_);
  const NotFiniteUpdate update{.step = step_ + 1,
                               .number = begun_.size(),
                               .pattern = left_out.pattern,
                               .loss = left_out.loss,
                               .gradient_norm = left_out.gradient_norm,
                               .learning_rate = lr,
                               .loss_sums = world_.all(std::span(&loss_sum, 1)),
                               .hosts = world_.all(world_.host())};
  // A record that cannot be written, on a full disk say, is no reason to lose the state or to end a run that skips.
  const auto reason_against = [&](auto&& writing) {
    try {
      if (world_.root()) writing();
    } catch (const std::exception& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto not_listed =
      reason_against([&] { write_not_finite(run, update, shape, *training_samples(job_, data_)); });
  const auto file = not_listed.empty() ? not_finite_file(run, update).string() : "";
  const auto not_noted = reason_against([&] {
    metrics_->write(run::NotFiniteMetrics{update.step, update.number, left_out, file});
  });
  auto text = describe(run, update, shape, not_listed);  // the root's is shown
  if (!not_noted.empty()) text += "; " + not_noted;
  if (stop) {
    stop_reason_ = text;
  } else if (world_.root()) {
    listener_.on_warning(fmt::format("{} (left out in a row: {}; health.max_skips = {} stop the job)", text,
                                     skips_.in_a_row(update.number), job_.health.max_skips));
  }
}

void Trainer::report(run::StepMetrics metrics) {
  const double pace = pace_.training / pace_.steps;
  const bool logged = step_ % job_.log.every == 0 || step_ == job_.schedule.steps;
  pace_.seconds_a_step = pace_.seconds_a_step > 0 ? 0.9 * pace_.seconds_a_step + 0.1 * pace : pace;
  metrics.tokens_per_second = static_cast<double>(job_.tokens_per_step()) / pace;
  metrics.seconds = now() - pace_.started;
  metrics.seconds_left = static_cast<double>(job_.schedule.steps - step_) * pace_.seconds_a_step;
  metrics.data_wait_seconds = loader_->wait_seconds() - pace_.waited;
  metrics.data_wait_share = metrics.data_wait_seconds / pace_.training;
  metrics.step_seconds = pace;
  if (world_.root() && logged) measure_resources(metrics);
  if (logged) judge_health(metrics);
  if (world_.root()) listener_.on_step(metrics, logged);
  if (!logged) return;
  write_metrics(metrics);
  pace_.training = 0;
  pace_.for_ranks = 0;
  pace_.steps = 0;
  pace_.waited = loader_->wait_seconds();
}

/// What the root's processor and memory are used for; the others' are alike.
void Trainer::measure_resources(run::StepMetrics& metrics) {
  const auto& ops = session_.ops();
  const double peak =
      job_.log.peak > 0 ? job_.log.peak * 1e12 : datasheet_peak(ops.device_name(), ops.compute_type());
  metrics.share_of_peak = peak > 0 ? operations_ / metrics.step_seconds / (peak * world_.size())
                                   : std::numeric_limits<double>::quiet_NaN();
  metrics.memory_bytes = session_.memory().total_bytes();
  metrics.memory_available_bytes = available_memory(ops.device());
  metrics.host_memory_bytes = resident_bytes();
}

/// Of the steps since the last report: one exchange of three numbers a rank.
void Trainer::judge_health(run::StepMetrics& metrics) {
  const std::array own = {pace_.training, pace_.for_ranks, metrics.data_wait_seconds};
  const auto all = world_.all(own);
  if (!world_.root()) return;
  std::vector<run::RankClocks> ranks;
  for (std::size_t at = 0; at < all.size(); at += own.size())
    ranks.push_back({.training = all[at], .waited = all[at + 1], .data_wait = all[at + 2]});
  std::vector<std::string> warnings;
  metrics.health = health_->report(step_, pace_.steps, ranks, warnings);
  for (const auto& warning : warnings) listener_.on_warning(warning);
}

/// Appends to metrics.jsonl on the root. A file without room is warned of, and tried again with the next line; where too
/// much waits, all ranks end with one message.
template <typename Metrics>
void Trainer::write_metrics(const Metrics& metrics) {
  world_.agree([&] {
    if (world_.root()) metrics_->write(metrics);
    if (tensorboard_) tensorboard_->write(metrics);
  });
  if (!world_.root()) return;
  const auto trouble = unwritten();
  if (trouble.empty() != said_unwritten_.empty()) {
    listener_.on_warning(trouble.empty()
                             ? "the lines that waited for room are written"
                             : trouble + "; training continues, and these lines are kept and tried again");
  }
  said_unwritten_ = trouble;
}

std::string Trainer::unwritten() {
  if (!metrics_) return "";
  metrics_->retry();
  if (tensorboard_) tensorboard_->retry();
  const auto lines = metrics_->trouble();
  const auto events = tensorboard_ ? tensorboard_->trouble() : std::string();
  return lines + (lines.empty() || events.empty() ? "" : "; ") + events;
}

/// False where a signal ended it: then nothing of it is written.
bool Trainer::validate() {
  const std::int64_t last = world_.max(world_.root() ? metrics_->last_validation() : -1);
  if (last == step_) return true;
  const double began = now();
  const auto progress = [&](std::int64_t done, std::int64_t all) {
    if (world_.root()) listener_.on_phase(fmt::format("validation {}/{}", done, all));
  };
  const auto scores = validator_->run(session_.model(), job_.log.validation_patterns, progress,
                                      [&] { return stop_requested(); });
  if (scores.empty()) return false;
  run::ValidationMetrics metrics{.step = step_, .tokens = step_ * job_.tokens_per_step(), .results = {}};
  for (std::size_t p = 0; p < scores.size(); ++p) {
    metrics.results.push_back(
        {job_.log.validation_patterns[p].describe(), scores[p].loss, scores[p].accuracy});
  }
  metrics.seconds = now() - began;
  write_metrics(metrics);
  if (world_.root()) listener_.on_validation(metrics);
  return true;
}

/// Runs what saves; remembers that it failed, so that a failing save is not repeated on the way out.
template <typename Saving>
void Trainer::noting_failure(Saving&& saving) {
  saving_failed_ = true;
  saving();
  saving_failed_ = false;
}

void Trainer::save() {
  if (saved_step_ == step_) return;
  saved_step_ = step_;
  go_on_saving(true);  // one at a time
  noting_failure([&] { begin_saving(); });
  if (!save_in_background_) report_saved();
}

void Trainer::begin_saving() {
  const double began = now();
  saving_since_ = began;
  session_.store().wait_all();  // nothing may be under way in the memory that is saved
  const checkpoint::Info info{.directory = checkpoint::step_directory(job_.job.directory, step_),
                              .model = job_.model,
                              .step = step_,
                              .updates = session_.optimizer().updates(),
                              .begun = updates_done(begun_),
                              .left_out = skips_.in_a_row(),
                              .tokens = step_ * job_.tokens_per_step(),
                              .job = config::to_toml(job_),
                              .tokenizer = data_.manifest.tokenizer,
                              .data = checkpoint::counts_of(data_.manifest)};
  saving_ = {.step = step_, .path = info.directory.string(), .background = save_in_background_};
  if (!save_in_background_) return save_now(info);
  background_save_.start(info, session_.store(), session_.optimizer(), session_.ops(), [job = job_] {
    checkpoint::prune(job.job.directory, job.checkpoint.keep, job.checkpoint.keep_every);
  });
  saving_.copy_seconds = background_save_.copy_seconds();
  saving_.copied_bytes = background_save_.copied_bytes();
  saving_.stall_seconds = now() - began;
}

void Trainer::save_now(const checkpoint::Info& info) {
  if (world_.root()) listener_.on_phase("checkpoint");
  checkpoint::save(world_, info, session_.store(), session_.optimizer(), session_.ops());
  if (world_.root()) checkpoint::prune(job_.job.directory, job_.checkpoint.keep, job_.checkpoint.keep_every);
  saving_.stall_seconds = now() - saving_since_;
}

/// Between steps: what the threads of all ranks have done is agreed on, and where it is complete, reported.
void Trainer::go_on_saving(bool wait) {
  if (!background_save_.active()) return;
  const double began = now();
  if (wait && world_.root()) listener_.on_phase("checkpoint");
  bool complete = false;
  noting_failure([&] { complete = background_save_.advance(wait); });
  saving_.stall_seconds += now() - began;
  if (complete) report_saved();
}

void Trainer::report_saved() {
  saving_.seconds = now() - saving_since_;
  write_metrics(saving_);
  if (world_.root()) listener_.on_checkpoint(saving_);
}

}  // namespace ratplus::train
