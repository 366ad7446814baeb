// Trainer: the training loop, for pretraining and adaptation, joint and plain (docs/model.md, section 14).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/samples/loader.h"
#include "lib/checkpoint/background_save.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/config/job.h"
#include "lib/evaluation/validation.h"
#include "lib/run/health.h"
#include "lib/run/metrics.h"
#include "lib/run/tensorboard_log.h"
#include "lib/session/session.h"
#include "lib/session/settings_of_job.h"
#include "lib/train/copies.h"
#include "lib/train/not_finite.h"
#include "lib/train/test_fault.h"
#include "lib/train/training_data.h"

namespace ratplus::train {

/// Receives the events of a run. Called on the root rank only.
class TrainListener {
 public:
  virtual ~TrainListener() = default;
  /// Weights were loaded; before on_start.
  virtual void on_load(const run::LoadMetrics& metrics) = 0;
  virtual void on_start(session::Session& session, std::int64_t first_step) = 0;
  /// The work between steps: "validation 12/64", "checkpoint".
  virtual void on_phase(const std::string& text) = 0;
  /// Every step; `logged` for those that also go to metrics.jsonl.
  virtual void on_step(const run::StepMetrics& metrics, bool logged) = 0;
  virtual void on_validation(const run::ValidationMetrics& metrics) = 0;
  virtual void on_checkpoint(const run::CheckpointMetrics& metrics) = 0;
  /// One line on a problem that does not stop training.
  virtual void on_warning(const std::string& text) = 0;
};

enum class Outcome {
  finished,  ///< the last step is done and saved
  interrupted,  ///< a signal, or the steps asked for, ended it before the last step: the step was finished and saved
  not_finite,  ///< an update was not finite and is to stop the job: the state before it was saved
  differing,   ///< ranks differ in what they hold alike: nothing was saved
};

/// The start of a run: initial weights (no checkpoint), the weights of a checkpoint or of a file of another
/// system's, or all of a checkpoint's state.
struct StartingPoint {
  std::optional<checkpoint::Info> checkpoint;  ///< of whatever the weights are in
  bool resume = false;                         ///< with the optimizer's state, at the checkpoint's step
  bool unverified = false;                     ///< to be compared with its checksums while it is loaded
  bool same_data = true;  ///< of a resumed run: its data's checksums were compared, and not the sizes alone
};

/// The start of a job: `resume` if given, else job.from, else initial weights; once it is known to fit the job's model
/// and its dataset. The root looks, once for all ranks. Throws Error, on all ranks alike; writes nothing.
StartingPoint find_start(const config::JobConfig& job, const TrainingData& data, const parallel::World& world,
                         const std::optional<std::filesystem::path>& resume);

/// The same by one process, of what stands in `directory`, a checkpoint or weights of another system's.
StartingPoint look_at_start(const config::JobConfig& job, const TrainingData& data,
                            const std::filesystem::path& directory, bool resume);

/// The share of a step's operations that remains when its first `done` updates are made; `updates`: operations of each.
double share_ahead(std::span<const double> updates, std::size_t done);

class Trainer {
 public:
  /// Everything up to the first step: memory allocated, weights initialised or loaded, the held-out sequences read once,
  /// metrics.jsonl opened in the run directory, which must be there. Throws Error, on all ranks alike.
  Trainer(const config::JobConfig& job, const parallel::World& world, TrainingData data,
          const StartingPoint& start, TrainListener& listener);

  /// Why the checkpoint could not be loaded, where it was to be verified meanwhile; empty where it is whole. Then nothing
  /// was changed in the run directory, and this object can only be destroyed. The same on all ranks.
  const std::string& damage() const { return damage_; }
  /// To the last step, or, where `most_steps` is positive, to so many steps from here. An error that all ranks know of
  /// is thrown once the state after the last whole update is saved, and says so.
  Outcome run(std::int64_t most_steps = 0);

  std::int64_t step() const { return step_; }
  /// Of the newest save of which metrics.jsonl told when it was opened; 0: none. Root rank.
  std::int64_t told_step() const { return metrics_ ? metrics_->told_step() : 0; }
  /// After Outcome::not_finite and Outcome::differing: why.
  const std::string& stop_reason() const { return stop_reason_; }
  /// After Outcome::interrupted: which signal that was; 0 where the steps asked for are done.
  int stop_signal() const { return stop_signal_; }
  /// Why lines of metrics.jsonl or of TensorBoard's file are not written, after one more try; empty where all are. Root
  /// only.
  std::string unwritten();
  session::Session& session() { return session_; }

 private:
  void load(const StartingPoint& start);
  void load_state(const StartingPoint& start);
  void open_outputs();
  std::string differences();
  bool alike_or_back();
  Outcome train();
  std::string keep_progress();
  std::optional<run::StepMetrics> train_step();
  void leave_out_step();
  bool train_update(const data::StepBatch& batch, std::int64_t counted, double lr);
  void record_not_finite(const run::UpdateMetrics& left_out, double loss_sum, double lr, bool stop);
  void report(run::StepMetrics metrics);
  void measure_resources(run::StepMetrics& metrics);
  void judge_health(run::StepMetrics& metrics);
  template <typename Metrics>
  void write_metrics(const Metrics& metrics);
  bool validate();
  void save();
  void begin_saving();
  void save_now(const checkpoint::Info& info);
  void go_on_saving(bool wait);
  template <typename Saving>
  void noting_failure(Saving&& saving);
  void report_saved();
  bool stop_requested();

  config::JobConfig job_;
  const parallel::World& world_;
  TrainListener& listener_;
  TrainingData data_;
  std::vector<session::Update> updates_;
  session::Session session_;
  std::unique_ptr<evaluation::Validator> validator_;
  std::unique_ptr<data::Loader> loader_;
  std::optional<run::MetricsFile> metrics_;         ///< root only
  std::optional<run::TensorboardLog> tensorboard_;  ///< root only, where the job asks for it

  std::int64_t step_ = 0;                  ///< steps done
  std::vector<run::UpdateMetrics> begun_;  ///< updates of the step after them that are done, or left out
  TestFault fault_;
  SkipLimit skips_;
  Copies copies_;
  std::string job_text_;          ///< of the whole job
  std::int64_t batch_step_ = -1;  ///< of the batch that was read last
  std::int64_t compared_step_ =
      -1;  ///< the last that was compared; begun updates of the next may have been made since
  std::int64_t went_back_to_ = -1;   ///< the checkpoint from which training continued after a difference
  std::vector<double> last_update_;  ///< loss, gradient norm and learning rate of the last update
  bool gradient_is_finite_ = false;  ///< of the last update
  std::string stop_reason_;
  std::string damage_;
  int stop_signal_ = 0;
  std::int64_t stop_step_ = 0;   ///< at which the steps asked for are done; 0: at the schedule's end
  std::int64_t first_step_ = 0;  ///< steps done when this process began
  bool updating_ = false;        ///< an update is under way: the state is that of no step
  bool saving_failed_ = false;
  std::string said_unwritten_;                ///< the last warning on files that lack lines
  std::optional<run::HealthMonitor> health_;  ///< root only
  std::int64_t saved_step_ = -1;              ///< of the last save, which may be under way
  checkpoint::BackgroundSave background_save_;
  bool save_in_background_;
  run::CheckpointMetrics saving_;  ///< of the last save
  double saving_since_ = 0;
  std::vector<double> update_operations_;  ///< of each update, all ranks
  double operations_ = 0;                  ///< of a step: their sum

  /// Clocks of the throughput in reports.
  struct Pace {
    double started = 0;   ///< when run() began
    double training = 0;  ///< seconds in steps since the last report, validation and saving left out
    double steps = 0;   ///< steps since the last report; of a step resumed in its middle, the share done here
    double waited = 0;  ///< the loader's waiting time at the last report
    double for_ranks = 0;       ///< seconds that steps have waited for other ranks since the last report
    double seconds_a_step = 0;  ///< smoothed
  } pace_;
};

}  // namespace ratplus::train
