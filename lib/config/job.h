// JobConfig: a job file (TOML) as typed, validated structs. docs/job-files.md lists every key.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/samples/sampler.h"
#include "kernels/device.h"
#include "kernels/tensor.h"
#include "lib/model/config.h"
#include "lib/model/pattern_plan.h"
#include "lib/model/recompute.h"
#include "lib/optim/schedule.h"
#include "parallel/sharding.h"

namespace ratplus::config {

/// pretrain starts from initial weights, adapt from the weights of a checkpoint (job.from) with a fresh
/// optimizer, finetune too, on samples with labels of their own (docs/model.md, section 17).
enum class Kind { pretrain, adapt, finetune };
/// plain: one update a step with job.pattern. joint: two updates a step on the same batch, first with
/// job.joint_pattern, then with job.pattern (docs/model.md, section 14; the paper's active recurrence
/// learning).
enum class Recipe { plain, joint };
/// The type of the weights that a finished run writes as safetensors.
enum class Export { none, float32, bfloat16, float16 };
/// Reaction to a loss or a gradient norm that is not finite: stop saves the state before it and ends the job, skip leaves
/// the update out.
enum class NotFinite { stop, skip };
const char* to_string(Kind kind);
const char* to_string(Recipe recipe);
const char* to_string(Export type);
/// Reaction to copies that differ between ranks: stop ends the job and saves nothing, go_back continues from the newest
/// checkpoint.
enum class Differing { stop, go_back };
const char* to_string(NotFinite choice);
const char* to_string(Differing choice);

struct JobSection {
  Kind kind = Kind::pretrain;
  Recipe recipe = Recipe::plain;
  std::string directory;  ///< the run directory; all output goes there
  std::string from;       ///< adapt, finetune: a checkpoint, or a run directory (its newest)
  std::uint64_t seed = 1;
  DeviceChoice device = DeviceChoice::automatic;
  DType precision = DType::bf16;  ///< of a GPU's products: bf16, or f32 for checking; the CPU computes in f32
  bool deterministic = true;      ///< the same bits from run to run on GPUs, too
  model::Recompute recompute = model::Recompute::none;
  int threads = 0;             ///< CPU threads a rank, 0 = the rank's share of the cores
  model::PatternPlan pattern;  ///< default dense
  model::PatternPlan joint_pattern{Pattern{64, 0, 0}};  ///< joint only

  friend bool operator==(const JobSection&, const JobSection&) = default;
};

/// One of several datasets that samples are taken from.
struct DataSource {
  std::string directory;
  double weight = 1;  ///< its share of the samples, as a part of the sum of all weights

  friend bool operator==(const DataSource&, const DataSource&) = default;
};

struct DataSection {
  std::string directory;                ///< a dataset made by `ratplus prepare` ...
  std::vector<DataSource> sources;      ///< ... or several of them
  std::int64_t sequence_length = 4096;  ///< T
  std::int64_t batch = 512;             ///< sequences a step, over all ranks
  std::int64_t micro_batch = 1;         ///< sequences a rank computes at once
  bool choose_micro_batch = false;      ///< "auto": micro_batch is 1 until lib/plan has chosen
  data::Sampling sampling = data::Sampling::ordered;
  int prefetch = 2;  ///< steps read ahead

  friend bool operator==(const DataSection&, const DataSection&) = default;
  /// The directory as the only source, or the sources.
  std::vector<DataSource> all_sources() const;
};

struct OptimizerSection {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;  ///< largest global gradient norm

  friend bool operator==(const OptimizerSection&, const OptimizerSection&) = default;
};

struct ScheduleSection {
  std::int64_t steps = 0;   ///< N; filled in where tokens is given
  std::int64_t tokens = 0;  ///< instead of steps, rounded up to whole steps; 0 = not given
  double peak_lr = 8e-4;
  double floor_lr = 1e-6;
  double warmup = 0.05;  ///< m, share of the steps
  optim::Shape shape = optim::Shape::cosine;
  double decay = 0.2;  ///< wsd: share of the steps, at the end, in which the learning rate falls
  optim::Decay decay_shape = optim::Decay::linear;
  /// Instead of steps: passes over the training samples, rounded up to whole steps; 0 = not given. The steps follow
  /// once the data are known (train::complete_schedule).
  std::int64_t epochs = 0;

  friend bool operator==(const ScheduleSection&, const ScheduleSection&) = default;
};

struct ParallelSection : parallel::Settings {
  int ranks = 0;              ///< ranks that the job must have; 0 = any
  bool choose_shard = false;  ///< "auto": shard is none until lib/plan has chosen

  friend bool operator==(const ParallelSection&, const ParallelSection&) = default;
};

struct CheckpointSection {
  std::int64_t every = 0;             ///< steps between checkpoints, 0 = only at the end
  std::int64_t keep = 2;              ///< newest ones that stay
  std::int64_t keep_every = 0;        ///< those of steps divisible by this stay too; 0 = none
  std::string directory;              ///< where they go; "" = the run directory
  bool background = true;             ///< written beside training, from a copy in host memory
  Export export_type = Export::none;  ///< of the last weights, written as safetensors in the run directory

  friend bool operator==(const CheckpointSection&, const CheckpointSection&) = default;
};

struct LogSection {
  std::int64_t every = 10;                 ///< steps between lines of metrics.jsonl
  std::int64_t validate_every = 0;         ///< steps between validations, 0 = only at the end
  std::int64_t validation_sequences = 64;  ///< sequences, spread over the held-out part, at most
  /// Default: pattern, and joint_pattern if joint; pattern always.
  std::vector<model::PatternPlan> validation_patterns;
  bool tensorboard = false;  ///< event files in the run directory's tensorboard/, besides metrics.jsonl
  double peak = 0;  ///< TFLOP/s of a rank's processor, for share_of_peak; 0 = by the datasheet, where known

  friend bool operator==(const LogSection&, const LogSection&) = default;
};

struct HealthSection {
  NotFinite not_finite = NotFinite::stop;
  /// Updates left out in a row at which skip stops too; a joint step's two count apart.
  std::int64_t max_skips = 10;
  // Warn above these shares; 0: never.
  double straggler = 0.2;            ///< of a step, that the others wait for the slowest rank
  double slowdown = 0.2;             ///< of the run's own median throughput, that is missing
  double data_wait = 0.1;            ///< of a step, that a rank waits for its data
  std::int64_t compare_every = 100;  ///< steps between comparisons of what ranks hold alike; 0: never
  Differing differing = Differing::stop;

  friend bool operator==(const HealthSection&, const HealthSection&) = default;
};

struct JobConfig {
  JobSection job;
  model::ModelConfig model;
  DataSection data;
  OptimizerSection optimizer;
  ScheduleSection schedule;
  ParallelSection parallel;
  CheckpointSection checkpoint;
  LogSection log;
  HealthSection health;
  std::string source;  ///< the file's name, for messages; no part of the job
  /// A line for each key that was given by its old name (old_names.h): "job.toml:7: data.window is now
  /// data.sequence_length". No part of the job.
  std::vector<std::string> renamed;
  /// Keys that weights which are not there yet will give ("job.pattern"): they hold general defaults here, and to_toml
  /// leaves them out. No part of the job.
  std::vector<std::string> awaited;

  bool awaits(std::string_view key) const { return std::ranges::find(awaited, key) != awaited.end(); }
  /// Whether a setting is "auto", to be chosen for the ranks that the job is started on.
  bool chooses() const { return data.choose_micro_batch || parallel.choose_shard; }
  std::int64_t tokens_per_step() const { return data.batch * data.sequence_length; }
  /// Equal in every key.
  friend bool operator==(const JobConfig& a, const JobConfig& b) {
    return a.job == b.job && a.model == b.model && a.data == b.data && a.optimizer == b.optimizer &&
           a.schedule == b.schedule && a.parallel == b.parallel && a.checkpoint == b.checkpoint &&
           a.log == b.log && a.health == b.health;
  }
};

/// Changes the defaults of a job that begins with weights from elsewhere: `given` holds the keys that are given, `job`
/// the defaults of its kind, which it may change. False where those weights are not there yet.
using StartDefaults = std::function<bool(const JobConfig& given, JobConfig& job)>;

/// A job file by the path given, or, where there is none and the path begins with configs/, the one of that name that is
/// installed with the program: PREFIX/share/ratplus/configs beside PREFIX/bin.
std::filesystem::path find_job_file(const std::filesystem::path& given);

/// Reads a job file (find_job_file), applies overrides ("section.key=value", value in TOML; a bare word is taken as a string;
/// a later one wins, and one of schedule.steps and schedule.tokens replaces the other of the file), and
/// validates what can be validated without ranks or data. Throws Error naming file, line and key, with the
/// nearest known key for an unknown one.
JobConfig load_job(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                   const StartDefaults& start_defaults = {});
/// A job file that is read once, however often it is loaded: a pipe gives its text only once.
class JobFileText {
 public:
  explicit JobFileText(std::filesystem::path given) : given_(std::move(given)) {}
  /// As load_job. Throws Error each time where the file cannot be read.
  JobConfig load(const std::vector<std::string>& overrides, const StartDefaults& start_defaults = {});

 private:
  std::filesystem::path given_;
  std::filesystem::path file_;  ///< that was found
  std::optional<std::string> text_;
};
/// The same from text; `name` is the file's name in messages.
JobConfig parse_job(std::string_view text, const std::string& name,
                    const std::vector<std::string>& overrides = {}, const StartDefaults& start_defaults = {});
/// The whole effective job as a job file, but for what it awaits: parse_job of it gives an equal job.
std::string to_toml(const JobConfig& job);
/// The keys in which `job` is not `stored`, each as "schedule.steps = 8 (was 6)"; empty if the jobs are equal.
std::vector<std::string> differences(const JobConfig& stored, const JobConfig& job);

/// Checks that depend on the number of ranks: parallel.ranks met, batch divisible by ranks x micro_batch.
void validate_ranks(const JobConfig& job, int ranks);
/// Checks that depend on the dataset in `directory`: the vocabulary, and a sequence of T + 1 tokens in either split.
void validate_data(const JobConfig& job, const std::string& directory, std::int64_t dataset_vocab_size,
                   std::int64_t train_tokens, std::int64_t validation_tokens);

}  // namespace ratplus::config
