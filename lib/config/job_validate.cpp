#include "lib/config/job_validate.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "lib/config/keys.h"
#include "lib/model/mixers.h"
#include "lib/model/parameters.h"

namespace ratplus::config {
namespace {

/// "48 or 64": the multiples of n around x, or only n if there is none below.
std::string multiples_near(std::int64_t x, std::int64_t n) {
  const std::int64_t below = x / n * n;
  return below == 0 ? fmt::format("{}", n) : fmt::format("{} or {}", below, below + n);
}

/// The largest divisor of x that is at most `limit`.
std::int64_t divisor_at_most(std::int64_t x, std::int64_t limit) {
  std::int64_t divisor = std::min(x, limit);
  while (x % divisor != 0) --divisor;
  return divisor;
}

void validate_model(const model::ModelConfig& model, const PlaceOf& place_of) {
  if (model.head_dim % 2 != 0) {
    fail(
        "{}: model.head_dim = {} is odd, but rotary position embedding turns pairs of channels; use {} or {}",
        place_of("model.head_dim"), model.head_dim, model.head_dim - 1, model.head_dim + 1);
  }
  if (model.width % model.head_dim != 0) {
    fail("{}: model.width = {} is not a multiple of model.head_dim = {}; use model.width = {}",
         place_of("model.width"), model.width, model.head_dim, multiples_near(model.width, model.head_dim));
  }
}

/// A unit travels in one MPI call, which counts elements in int.
void validate_units(const model::ModelConfig& model, const PlaceOf& place_of) {
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  model::ModelConfig blocks = model;  // one of each mixer
  blocks.mixers = model.distinct_mixers();
  blocks.layers = std::ssize(blocks.mixers);
  const std::vector<parallel::UnitLayout> units = model::unit_layouts(blocks);
  if (units.front().numel > most) {
    fail(
        "{}: model.vocab_size = {} and model.width = {} make an embedding of {} parameters, but MPI moves at "
        "most {} at once; use a smaller vocabulary or width",
        place_of("model.vocab_size"), model.vocab_size, model.width, units.front().numel, most);
  }
  for (std::size_t u = 1; u < units.size(); ++u) {
    if (units[u].numel <= most) continue;
    fail(
        "{}: model.width = {} makes blocks of {} parameters, but MPI moves at most {} at once; use a smaller "
        "width and more model.layers",
        place_of("model.width"), model.width, units[u].numel, most);
  }
}

/// Keeps the bytes of activations, some hundred for each element of this product, within 64 bits.
void validate_activations(const JobConfig& job, const PlaceOf& place_of) {
  const DataSection& data = job.data;
  const model::ModelConfig& model = job.model;
  const double rows = static_cast<double>(data.micro_batch) * static_cast<double>(data.sequence_length);
  if (rows * static_cast<double>(model.width) * static_cast<double>(model.layers) > 0x1p53) {
    fail(
        "{}: data.micro_batch = {} x data.sequence_length = {} x model.width = {} x model.layers = {} is "
        "more than "
        "any memory holds; make some of them smaller",
        place_of("data.micro_batch"), data.micro_batch, data.sequence_length, model.width, model.layers);
  }
  if (rows * static_cast<double>(model.vocab_size) > 0x1p53) {
    fail(
        "{}: data.micro_batch = {} x data.sequence_length = {} x model.vocab_size = {} is more than "
        "any memory holds; make some of them smaller",
        place_of("data.micro_batch"), data.micro_batch, data.sequence_length, model.vocab_size);
  }
}

void validate_mixers(const model::ModelConfig& model, const PlaceOf& place_of) {
  const auto count = static_cast<std::int64_t>(model.mixers.size());
  model::check_sizes(model, fmt::format("{}: model.mixer", place_of("model.mixer")),
                     fmt::format("{}: model.kv_heads", place_of("model.kv_heads")));
  if (count == 1 || count == model.layers) return;
  fail(
      "{}: model.mixer is a list of {}, and model.layers = {}; give one mixer for all layers, or one a layer",
      place_of("model.mixer"), count, model.layers);
}

void validate_patterns(const JobConfig& job, const PlaceOf& place_of) {
  const auto check = [&](const model::PatternPlan& plan, std::string_view key, const std::string& path) {
    model::check_pattern(plan, job.model, fmt::format("{}: {}", place_of(key), path));
  };
  check(job.job.pattern, "job.pattern", "job.pattern");
  if (job.job.recipe == Recipe::joint) check(job.job.joint_pattern, "job.joint_pattern", "job.joint_pattern");

  const auto& plans = job.log.validation_patterns;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    check(plans[i], "log.validation_patterns", fmt::format("log.validation_patterns[{}]", i));
    // Results are named by the description, so that each needs one of its own.
    const auto same = [&](const model::PatternPlan& other) {
      return other.describe() == plans[i].describe();
    };
    if (std::any_of(plans.begin(), plans.begin() + static_cast<std::ptrdiff_t>(i), same)) {
      fail("{}: log.validation_patterns has {} twice; remove one", place_of("log.validation_patterns"),
           plans[i].describe());
    }
  }
}

void validate_schedule(const ScheduleSection& schedule, const PlaceOf& place_of) {
  if (schedule.floor_lr > schedule.peak_lr) {
    fail("{}: schedule.floor_lr = {} is above schedule.peak_lr = {}; lower the one or raise the other",
         place_of("schedule.floor_lr"), schedule.floor_lr, schedule.peak_lr);
  }
}

/// Keeps counts of tokens and samples within 64 bits: those of all steps, and those that a validation reads.
void validate_length(const JobConfig& job, const PlaceOf& place_of) {
  if (job.schedule.epochs > 0) return;  // the steps are not known yet
  const auto& data = job.data;
  const double tokens = static_cast<double>(job.schedule.steps) * static_cast<double>(data.batch) *
                        static_cast<double>(data.sequence_length);
  // A number of tokens is rounded up to whole steps.
  if (tokens <= 1.1 * static_cast<double>(most_tokens)) return;
  fail(
      "{}: schedule.steps = {} x data.batch = {} x data.sequence_length = {} are {:.2g} tokens, and at most "
      "{:.0g} "
      "are counted; "
      "use fewer steps, or schedule.tokens",
      place_of("schedule.steps"), job.schedule.steps, data.batch, data.sequence_length, tokens,
      static_cast<double>(most_tokens));
}

void validate_batch(const DataSection& data, const PlaceOf& place_of) {
  if (data.batch % data.micro_batch != 0) {
    fail(
        "{}: data.batch = {} is not a multiple of data.micro_batch = {}; use data.batch = {}, or "
        "data.micro_batch = {}",
        place_of("data.micro_batch"), data.batch, data.micro_batch,
        multiples_near(data.batch, data.micro_batch), divisor_at_most(data.batch, data.micro_batch));
  }
}

/// Alternatives to another data.batch: a micro-batch or a number of ranks that divides it.
std::string other_ways(const DataSection& data, int ranks) {
  std::string ways;
  if (data.batch % ranks == 0) {
    ways += fmt::format(", or data.micro_batch = {}", divisor_at_most(data.batch / ranks, data.micro_batch));
  }
  if (data.batch % data.micro_batch == 0) {
    const std::int64_t fewer = divisor_at_most(data.batch / data.micro_batch, ranks);
    ways += ", or " + counted(fewer, "rank");
  }
  return ways;
}

void validate_batch_over_ranks(const JobConfig& job, int ranks, const std::string& place) {
  const std::int64_t at_once = ranks * job.data.micro_batch;
  if (job.data.batch % at_once == 0) return;
  fail("{}: data.batch = {} is not divisible by {} x data.micro_batch {} = {}; use data.batch = {}{}", place,
       job.data.batch, counted(ranks, "rank"), job.data.micro_batch, at_once,
       multiples_near(job.data.batch, at_once), other_ways(job.data, ranks));
}

void require_sequence(const JobConfig& job, const std::string& directory, std::int64_t tokens,
                      const char* split, const char* more) {
  const std::int64_t needed = job.data.sequence_length + 1;
  if (tokens >= needed) return;
  const std::string shorter =
      tokens >= 2 ? fmt::format("use a data.sequence_length of at most {}, or ", tokens - 1) : "";
  fail("{}: data.sequence_length = {} needs {}, but the {} split of {} has {}; {}{}", job.source,
       job.data.sequence_length, counted(needed, "token"), split, directory, tokens, shorter, more);
}

}  // namespace

void validate_job(const JobConfig& job, const PlaceOf& place_of) {
  validate_model(job.model, place_of);
  validate_mixers(job.model, place_of);
  validate_units(job.model, place_of);
  validate_activations(job, place_of);
  validate_patterns(job, place_of);
  validate_schedule(job.schedule, place_of);
  validate_length(job, place_of);
  validate_batch(job.data, place_of);
  if (job.parallel.ranks > 0) validate_batch_over_ranks(job, job.parallel.ranks, place_of("parallel.ranks"));
}

void validate_ranks(const JobConfig& job, int ranks) {
  if (job.parallel.ranks > 0 && job.parallel.ranks != ranks) {
    fail(
        "{}: parallel.ranks = {}, but the job was started on {}; start it with mpirun -n {}, or set "
        "parallel.ranks = 0 to take any number",
        job.source, job.parallel.ranks, counted(ranks, "rank"), job.parallel.ranks);
  }
  validate_batch_over_ranks(job, ranks, job.source);
}

void validate_data(const JobConfig& job, const std::string& directory, std::int64_t dataset_vocab_size,
                   std::int64_t train_tokens, std::int64_t validation_tokens) {
  if (job.model.vocab_size != dataset_vocab_size) {
    fail(
        "{}: model.vocab_size = {}, but the dataset {} (data.{}) was tokenized with a vocabulary of "
        "{}; set model.vocab_size = {}, or give a dataset of the model's vocabulary",
        job.source, job.model.vocab_size, directory, job.data.sources.empty() ? "directory" : "sources",
        dataset_vocab_size, dataset_vocab_size);
  }
  require_sequence(job, directory, train_tokens, "training", "prepare a dataset from more text");
  require_sequence(job, directory, validation_tokens, "validation",
                   "prepare the dataset again with more text or a larger validation fraction");
}

}  // namespace ratplus::config
