#include <fmt/core.h>

#include <algorithm>

#include "base/error.h"
#include "base/files/foreign_file.h"
#include "base/files/pending_file.h"
#include "lib/config/job.h"
#include "lib/config/job_validate.h"
#include "lib/config/mixer_toml.h"
#include "lib/config/pattern_toml.h"
#include "lib/config/sources_toml.h"
#include "lib/config/toml_reader.h"

namespace ratplus::config {
namespace {

void require_given(const JobFile& file, const std::string& field, std::string_view path,
                   const char* example) {
  if (!field.empty()) return;
  fail("{}: {} is missing; give it in the job file, for example {}, or with --set {}=...", file.where(path),
       path, example, path);
}

void check_required(const JobConfig& job, const JobFile& file) {
  require_given(file, job.job.directory, "job.directory", "directory = \"runs/first\" in [job]");
  if (file.find("data.sources") == nullptr) {
    require_given(file, job.data.directory, "data.directory", "directory = \"runs/first/data\" in [data]");
  }
  if (job.job.kind != Kind::pretrain) {
    require_given(file, job.job.from, "job.from", "from = \"runs/pretrain\" in [job]");
  }
}

void check_unneeded(const JobConfig& job, const JobFile& file) {
  if (!job.data.directory.empty() && !job.data.sources.empty()) {
    fail("{}: data.sources and data.directory (at {}) are both given; remove one of them",
         file.where("data.sources"), file.where("data.directory"));
  }
  if (job.job.kind == Kind::pretrain && !job.job.from.empty()) {
    fail(
        "{}: job.from is given, but job.kind = \"pretrain\" begins with initial weights; use "
        "job.kind = \"adapt\", or remove job.from",
        file.where("job.from"));
  }
  if (job.job.recipe == Recipe::plain && file.find("job.joint_pattern") != nullptr) {
    fail(
        "{}: job.joint_pattern is given, but job.recipe = \"plain\" has no sparse update; use "
        "job.recipe = \"joint\", or remove job.joint_pattern",
        file.where("job.joint_pattern"));
  }
  for (const char* key : {"schedule.decay", "schedule.decay_shape"}) {
    if (job.schedule.shape == optim::Shape::wsd || file.find(key) == nullptr) continue;
    fail(
        "{}: {} is given, but schedule.shape = \"{}\" has no decay of its own; use schedule.shape = \"wsd\", "
        "or remove {}",
        file.where(key), key, to_string(job.schedule.shape), key);
  }
}

/// Sets the defaults of fine-tuning (docs/model.md, section 17).
void set_finetune_defaults(JobConfig& job) {
  job.data.batch = 32;
  job.data.sampling = data::Sampling::shuffled;
  job.optimizer.weight_decay = 0.01;
  job.schedule.peak_lr = 1e-5;
  job.schedule.warmup = 0.05;
}
constexpr std::int64_t finetune_epochs = 4;

/// Exactly one of steps, tokens and epochs is given; steps follows from tokens, in whole steps.
void complete_schedule(JobConfig& job, const JobFile& file) {
  const Value* first = nullptr;
  for (const char* key : {"schedule.steps", "schedule.tokens", "schedule.epochs"}) {
    const Value* value = file.find(key);
    if (value == nullptr) continue;
    if (first != nullptr) {
      fail("{}: {} and {} (at {}) are both given; remove one of them", first->where(), first->path, key,
           value->where());
    }
    first = value;
  }
  if (first == nullptr && job.job.kind == Kind::finetune) {
    job.schedule.epochs = finetune_epochs;
  } else if (first == nullptr) {
    fail("{}: the length of the job is missing; give steps or tokens in [schedule], for example tokens = 1e9",
         file.name());
  }
  if (job.schedule.tokens > 0) {
    const std::int64_t a_step = job.tokens_per_step();
    job.schedule.steps = job.schedule.tokens / a_step + (job.schedule.tokens % a_step != 0 ? 1 : 0);
  }
}

/// The patterns of the recipe, unless the job names others; its own is always among them.
void complete_validation(JobConfig& job) {
  std::vector<model::PatternPlan>& plans = job.log.validation_patterns;
  const bool named = !plans.empty();
  if (named && job.awaits("job.pattern")) return;  // its own is still to come
  const auto own = job.job.pattern.describe();
  if (std::ranges::none_of(plans, [&](const auto& plan) { return plan.describe() == own; }))
    plans.push_back(job.job.pattern);
  if (named) return;
  const bool other = job.job.joint_pattern.describe() != job.job.pattern.describe();
  if (job.job.recipe == Recipe::joint && other) plans.push_back(job.job.joint_pattern);
}

void read_keys(const JobFile& file, JobConfig& job) {
  for_each_key(job, [&](const char* section, const char* key, auto& field, const auto& allowed) {
    if (const Value* value = file.find(fmt::format("{}.{}", section, key))) read(*value, field, allowed);
  });
  const Value* mixer = file.find("model.mixer");
  if (mixer != nullptr && repeats(*mixer)) job.model.repeat_mixers();
  if (job.model.head_dim > 0 && job.model.kv_heads == job.model.heads())
    job.model.kv_heads = 0;  // one a head
}

/// A default size would be a guess where the weights that have it are not there.
void require_model(const JobConfig& job, const JobFile& file) {
  const auto given = [&](const char* key) { return file.find(key) != nullptr; };
  if (given("model.layers") && given("model.width") && given("model.vocab_size")) return;
  fail(
      "{}: there are no weights at {} (job.from) yet, and [model] does not say the model's sizes; give "
      "layers, width, "
      "head_dim and vocab_size in [model], or wait for the weights",
      file.where("job.from"), job.job.from);
}

/// What follows from weights that are not there yet: the model and the pattern, where they are not given.
std::vector<std::string> awaited_keys(const JobConfig& job, const JobFile& file) {
  std::vector<std::string> keys;
  const bool own_pattern = file.find("job.pattern") != nullptr;
  for_each_key(job, [&](const std::string& section, const char* key, const auto&, const auto&) {
    const std::string path = fmt::format("{}.{}", section, key);
    const bool follows =
        section == "model" || (!own_pattern && (path == "job.pattern" || path == "log.validation_patterns"));
    if (follows && file.find(path) == nullptr) keys.push_back(path);
  });
  return keys;
}

}  // namespace

std::vector<DataSource> DataSection::all_sources() const {
  return sources.empty() ? std::vector<DataSource>{{directory, 1}} : sources;
}

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::pretrain:
      return "pretrain";
    case Kind::adapt:
      return "adapt";
    case Kind::finetune:
      return "finetune";
  }
  return "";
}
const char* to_string(Recipe recipe) {
  return recipe == Recipe::plain ? "plain" : "joint";
}
const char* to_string(Export type) {
  switch (type) {
    case Export::none:
      return "none";
    case Export::float32:
      return "float32";
    case Export::bfloat16:
      return "bfloat16";
    case Export::float16:
      return "float16";
  }
  return "";
}

const char* to_string(NotFinite choice) {
  return choice == NotFinite::stop ? "stop" : "skip";
}

const char* to_string(Differing choice) {
  return choice == Differing::stop ? "stop" : "go_back";
}

JobConfig parse_job(std::string_view text, const std::string& name, const std::vector<std::string>& overrides,
                    const StartDefaults& start_defaults) {
  const JobFile file(text, name, overrides);
  JobConfig defaults;
  defaults.source = name;
  const Value* kind = file.find("job.kind");
  if (kind != nullptr && kind->node->value<std::string_view>() == "finetune") set_finetune_defaults(defaults);
  JobConfig job = defaults;
  read_keys(file, job);
  check_required(job, file);
  if (start_defaults && job.job.kind != Kind::pretrain) {
    if (start_defaults(job, defaults)) {
      job = defaults;
      read_keys(file, job);
    } else {
      require_model(job, file);
      job.awaited = awaited_keys(job, file);
    }
  }
  check_unneeded(job, file);
  complete_schedule(job, file);
  complete_validation(job);
  job.renamed = file.renamed();
  validate_job(job, [&](std::string_view key) { return file.where(key); });
  return job;
}

std::filesystem::path find_job_file(const std::filesystem::path& given) {
  std::error_code ignored;
  if (given.is_absolute() || given.begin() == given.end() || *given.begin() != "configs") return given;
  if (std::filesystem::exists(given, ignored)) return given;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const auto installed = program.parent_path().parent_path() / "share/ratplus" / given;
  return std::filesystem::is_regular_file(installed, ignored) ? installed : given;
}

JobConfig JobFileText::load(const std::vector<std::string>& overrides, const StartDefaults& start_defaults) {
  if (!text_) {
    file_ = find_job_file(given_);
    if (std::filesystem::is_directory(file_)) {
      fail("{}: is a directory; give a job file, such as configs/quickstart/pretrain.toml", file_.string());
    }
    text_ = read_whole_file(file_);
  }
  refuse_foreign(*text_, file_);
  return parse_job(*text_, file_.string(), overrides, start_defaults);
}

JobConfig load_job(const std::filesystem::path& given, const std::vector<std::string>& overrides,
                   const StartDefaults& start_defaults) {
  return JobFileText(given).load(overrides, start_defaults);
}

}  // namespace ratplus::config
