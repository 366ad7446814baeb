// Keys: every key of a job file, with its field and the values that it may have. Reading, writing, the
// suggestions for a misspelt key and the test of docs/job-files.md all use this one list.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/range.h"
#include "lib/config/job.h"
#include "lib/model/config_fields.h"

namespace ratplus::config {

/// The most tokens of a whole job; steps x batch x sequence_length is held to it too. The ranges below keep sums and
/// products of two numbers within 64 bits; validate_job checks products of three.
inline constexpr std::int64_t most_tokens = 1'000'000'000'000'000'000;

/// The values of a key that may also be "auto"; Bool: bool, or const bool of a job that is not changed.
template <typename Bool>
struct IntegerOrAuto {
  IntegerRange range;
  Bool& automatic;
};
template <typename Bool>
struct ChoiceOrAuto {
  Bool& automatic;
};
template <typename Bool>
ChoiceOrAuto(Bool&) -> ChoiceOrAuto<Bool>;
template <typename Bool>
IntegerOrAuto(IntegerRange, Bool&) -> IntegerOrAuto<Bool>;

/// "1 to 1000000", "at least 0".
std::string describe(const IntegerRange& range);
/// "greater than 0", "at least 0 and less than 1".
std::string describe(const RealRange& range);

/// All values of an enumeration, in the order of the documentation.
constexpr auto choices_of(Kind) {
  return std::array{Kind::pretrain, Kind::adapt, Kind::finetune};
}
constexpr auto choices_of(Recipe) {
  return std::array{Recipe::plain, Recipe::joint};
}
constexpr auto choices_of(Export) {
  return std::array{Export::none, Export::float32, Export::bfloat16, Export::float16};
}
constexpr auto choices_of(NotFinite) {
  return std::array{NotFinite::stop, NotFinite::skip};
}
constexpr auto choices_of(Differing) {
  return std::array{Differing::stop, Differing::go_back};
}
constexpr auto choices_of(DeviceChoice) {
  return std::array{DeviceChoice::automatic, DeviceChoice::cpu, DeviceChoice::cuda};
}
constexpr auto choices_of(optim::Shape) {
  return std::array{optim::Shape::cosine, optim::Shape::constant, optim::Shape::wsd};
}
constexpr auto choices_of(optim::Decay) {
  return std::array{optim::Decay::linear, optim::Decay::sqrt, optim::Decay::cosine};
}
/// Values of job.precision.
constexpr auto choices_of(DType) {
  return std::array{DType::bf16, DType::f32};
}
constexpr auto choices_of(parallel::Reduce) {
  return std::array{parallel::Reduce::bf16, parallel::Reduce::bf16_between_hosts, parallel::Reduce::f32};
}
constexpr auto choices_of(model::Recompute) {
  return std::array{model::Recompute::none, model::Recompute::cheap, model::Recompute::block};
}
constexpr auto choices_of(data::Sampling) {
  return std::array{data::Sampling::ordered, data::Sampling::random, data::Sampling::shuffled};
}
constexpr auto choices_of(parallel::Sharding) {
  return std::array{parallel::Sharding::none, parallel::Sharding::optimizer, parallel::Sharding::full};
}

/// Calls visit(section, key, field, allowed) for every key, in the order in which a job file is written;
/// `allowed` is Any, IntegerRange or RealRange. Job is JobConfig or const JobConfig.
template <typename Job, typename Visit>
void for_each_key(Job& config, Visit&& visit) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr RealRange positive = positive_range;
  constexpr RealRange not_negative{0, true, infinity, false};
  constexpr RealRange below_one{0, true, 1, false};
  // Larger ones make weights that are not finite, or whose products are not, within a step or two.
  constexpr double most_rate = 1000;

  auto& job = config.job;
  visit("job", "kind", job.kind, Any{});
  visit("job", "recipe", job.recipe, Any{});
  visit("job", "directory", job.directory, Any{});
  visit("job", "from", job.from, Any{});
  visit("job", "seed", job.seed, IntegerRange{0});
  visit("job", "device", job.device, Any{});
  visit("job", "precision", job.precision, Any{});
  visit("job", "deterministic", job.deterministic, Any{});
  visit("job", "recompute", job.recompute, Any{});
  visit("job", "threads", job.threads, IntegerRange{0, 4096});
  visit("job", "pattern", job.pattern, Any{});
  visit("job", "joint_pattern", job.joint_pattern, Any{});

  model::for_each_field(config.model, [&](const char* key, auto& field, const auto& allowed) {
    visit("model", key, field, allowed);
  });

  auto& data = config.data;
  visit("data", "directory", data.directory, Any{});
  visit("data", "sources", data.sources, Any{});
  visit("data", "sequence_length", data.sequence_length, IntegerRange{1, 10'000'000});
  visit("data", "batch", data.batch, IntegerRange{1, 1'000'000});
  visit("data", "micro_batch", data.micro_batch,
        IntegerOrAuto{IntegerRange{1, 1'000'000}, data.choose_micro_batch});
  visit("data", "sampling", data.sampling, Any{});
  visit("data", "prefetch", data.prefetch, IntegerRange{1, 1024});

  auto& optimizer = config.optimizer;
  visit("optimizer", "beta1", optimizer.beta1, below_one);
  visit("optimizer", "beta2", optimizer.beta2, below_one);
  visit("optimizer", "eps", optimizer.eps, positive);
  visit("optimizer", "weight_decay", optimizer.weight_decay, RealRange{0, true, most_rate, true});
  visit("optimizer", "clip", optimizer.clip, RealRange{0, false, infinity, true});

  auto& schedule = config.schedule;
  visit("schedule", "steps", schedule.steps, IntegerRange{1, 1'000'000'000'000});
  visit("schedule", "tokens", schedule.tokens, IntegerRange{1, most_tokens});
  visit("schedule", "epochs", schedule.epochs, IntegerRange{1, 1'000'000});
  visit("schedule", "peak_lr", schedule.peak_lr, RealRange{0, false, most_rate, true});
  visit("schedule", "floor_lr", schedule.floor_lr, not_negative);
  visit("schedule", "warmup", schedule.warmup, below_one);
  visit("schedule", "shape", schedule.shape, Any{});
  visit("schedule", "decay", schedule.decay, RealRange{0, true, 1, true});
  visit("schedule", "decay_shape", schedule.decay_shape, Any{});

  auto& parallel = config.parallel;
  visit("parallel", "shard", parallel.shard, ChoiceOrAuto{parallel.choose_shard});
  visit("parallel", "shard_group", parallel.shard_group, IntegerRange{-1, 1'000'000});
  visit("parallel", "prefetch", parallel.prefetch, IntegerRange{1, 64});
  visit("parallel", "keep_weights", parallel.keep_weights, Any{});
  visit("parallel", "reduce", parallel.reduce, Any{});
  visit("parallel", "timeout", parallel.timeout, positive);
  visit("parallel", "ranks", parallel.ranks, IntegerRange{0, 1'000'000});

  auto& checkpoint = config.checkpoint;
  visit("checkpoint", "every", checkpoint.every, IntegerRange{0});
  visit("checkpoint", "keep", checkpoint.keep, IntegerRange{1});
  visit("checkpoint", "keep_every", checkpoint.keep_every, IntegerRange{0});
  visit("checkpoint", "directory", checkpoint.directory, Any{});
  visit("checkpoint", "background", checkpoint.background, Any{});
  visit("checkpoint", "export", checkpoint.export_type, Any{});

  auto& log = config.log;
  visit("log", "every", log.every, IntegerRange{1});
  visit("log", "validate_every", log.validate_every, IntegerRange{0});
  visit("log", "validation_sequences", log.validation_sequences, IntegerRange{1, 1'000'000'000});
  visit("log", "validation_patterns", log.validation_patterns, Any{});
  visit("log", "tensorboard", log.tensorboard, Any{});
  visit("log", "peak", log.peak, not_negative);

  auto& health = config.health;
  visit("health", "not_finite", health.not_finite, Any{});
  visit("health", "max_skips", health.max_skips, IntegerRange{1, 1'000'000});
  visit("health", "straggler", health.straggler, below_one);
  visit("health", "slowdown", health.slowdown, below_one);
  visit("health", "data_wait", health.data_wait, below_one);
  visit("health", "compare_every", health.compare_every, IntegerRange{0});
  visit("health", "differing", health.differing, Any{});
}

/// A section of a job file and the names of its keys.
struct SectionKeys {
  std::string section;
  std::vector<std::string> keys;
};

/// All sections, in the order of for_each_key.
const std::vector<SectionKeys>& known_keys();

/// A key with the values that it may have, as --set takes them.
struct KeyValues {
  std::string path;                 ///< "job.device"
  std::vector<std::string> values;  ///< of a choice, a boolean, or of a number that may be "auto"; empty: any
};

/// All keys, in the order of for_each_key.
std::vector<KeyValues> known_values();

/// Throw Error for a section or key that does not exist, with the nearest one that does. `where` is the place
/// in the file, or the override.
void require_known_section(std::string_view section, std::string_view where);
void require_known_key(std::string_view section, std::string_view key, std::string_view where);
/// A key outside any section, with the section that it belongs to, if there is one.
[[noreturn]] void fail_outside_sections(std::string_view key, std::string_view where);

}  // namespace ratplus::config
