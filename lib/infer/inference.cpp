#include "lib/infer/inference.h"

#include <fmt/core.h>
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/units.h"
#include "lib/checkpoint/manifest.h"
#include "lib/config/job.h"
#include "lib/config/pattern_toml.h"
#include "lib/model/mixers.h"
#include "lib/session/device.h"
#include "lib/session/session_parts.h"
#include "lib/session/start_defaults.h"

namespace ratplus::infer {
namespace {

std::unique_ptr<Ops> open(const ResolvedModel& model, const parallel::World& world) {
  const int threads = world.threads(model.threads);
  auto ops =
      session::open_device({model.device, model.precision, true, threads, model.config.head_dim}, world);
  const auto p = model.config.head_dim;
  if (ops->device().kind == DeviceKind::cuda && p % 8 != 0 && p > 64) {
    fail(
        "model.head_dim = {}: inference on a GPU takes heads whose channels are a multiple of 8, or at most "
        "64; use "
        "--device cpu",
        p);
  }
  omp_set_num_threads(threads);
  return ops;
}

}  // namespace

ResolvedModel resolve(const ModelRequest& request, const std::filesystem::path& path) {
  ResolvedModel result;
  model::ModelConfig assumed;
  if (request.head_dim > 0) assumed.head_dim = request.head_dim;
  result.source = weights::open_source(path, assumed);
  const auto& info = result.info();
  config::JobConfig job;
  if (!info.job.empty())
    job = config::parse_job(info.job, (info.directory / checkpoint::manifest_name).string());
  result.config = info.model;
  if (request.rope_base) {
    if (!(*request.rope_base > 1 && std::isfinite(*request.rope_base)))
      fail("--rope-base {}: is no finite number above 1", *request.rope_base);
    result.config.rope_base = *request.rope_base;
  }
  if (!(request.rope_scale > 0 && std::isfinite(request.rope_scale)))
    fail("--rope-scale {}: is no finite number above 0", request.rope_scale);
  result.rope_scale = request.rope_scale;
  result.plan = request.pattern.empty() ? job.job.pattern : config::parse_plan(request.pattern, "--pattern");
  model::check_pattern(result.plan, result.config, "--pattern");
  result.note = session::other_pattern_note(info, result.plan);
  result.trained_tokens = job.data.sequence_length;
  result.tokens = request.tokens > 0 ? request.tokens : result.trained_tokens;
  if (result.tokens > result.trained_tokens && !request.longer) {
    fail(
        "{}: sequences of {} tokens are asked for, and the model was trained with {}, beyond which it may "
        "write nonsense; "
        "give --longer to have them nevertheless (and, as a remedy, --rope-scale or --rope-base)",
        info.directory.string(), result.tokens, result.trained_tokens);
  }
  result.device = request.device.value_or(job.job.device);
  result.precision = request.precision.value_or(job.job.precision);
  result.cpu_weights =
      request.precision.value_or(weights::is_bfloat16(*result.source) ? DType::bf16 : DType::f32);
  result.threads = request.threads;
  return result;
}

std::int64_t largest_fitting(std::int64_t wanted, std::int64_t limit,
                             const std::function<std::int64_t(std::int64_t)>& bytes_of) {
  if (bytes_of(wanted) <= limit) return wanted;
  std::int64_t fitting = 0, too_many = wanted;
  while (too_many - fitting > 1) {
    const auto middle = fitting + (too_many - fitting) / 2;
    (bytes_of(middle) <= limit ? fitting : too_many) = middle;
  }
  return fitting;
}

Inference::Inference(const ResolvedModel& model, const parallel::World& world)
    : model_(model),
      ops_(open(model, world)),
      available_(session::memory_for_rank(ops_->device(), world)),
      weight_memory_(std::make_unique<Arena>(ops_->device())) {
  const auto type = ops_->device().kind == DeviceKind::cpu ? model_.cpu_weights : ops_->compute_type();
  weights_ = std::make_unique<Weights>(model_.config, *ops_, *weight_memory_, type);
  if (available_ >= 0 && weight_memory_->total_bytes() > available_) {
    fail("{}: the model's weights need {:.1f} GiB, and there are {:.1f} GiB", to_string(ops_->device()),
         gib(weight_memory_->total_bytes()), gib(available_));
  }
  weight_memory_->commit();
  weights_ = std::make_unique<Weights>(model_.config, *ops_, *weight_memory_, type);
}

Inference::Inference(const ResolvedModel& model, const EngineRequest& request, const parallel::World& world)
    : Inference(model, world) {
  restart(model.plan, model.tokens, request);
}

Inference::Inference(const ResolvedModel& model, const ScorerSettings& settings, const parallel::World& world)
    : Inference(model, world) {
  take_memory([&](Arena& arena) { return make_parts({model_.plan}, nullptr, &settings, arena); });
  prepare();
}

Inference::Inference(const ResolvedModel& model, const ServingRequest& request, const parallel::World& world)
    : Inference(model, world) {
  for (const auto& plan : request.plans) model::check_pattern(plan, model_.config, "--pattern");
  const bool gpu = ops_->device().kind == DeviceKind::cuda;
  const ScorerSettings scorer{.tokens = model_.tokens,
                              .rows = request.score_rows > 0 ? request.score_rows
                                      : gpu                  ? 16384
                                                             : 1024,
                              .rope_scale = model_.rope_scale};
  const auto settings = fit(request.plans, request.request, &scorer);
  take_memory([&](Arena& arena) { return make_parts(request.plans, &settings, &scorer, arena); });
  prepare();
}

void Inference::restart(const model::PatternPlan& plan, std::int64_t tokens, const EngineRequest& request) {
  model_.plan = plan, model_.tokens = tokens;
  const auto settings = fit({plan}, request, nullptr);
  take_memory([&](Arena& arena) { return make_parts({plan}, &settings, nullptr, arena); });
  prepare();
}

void Inference::load(weights::WeightsSource& source) {
  forget_prefixes();
  weights_->load(source);
}

void Inference::set_initial(std::uint64_t seed) {
  forget_prefixes();
  weights_->set_initial(seed);
}

bool Inference::keeps(const ResolvedModel& other) const {
  return ops_->device().kind != DeviceKind::cpu || weight_type() == DType::f32 ||
         other.cpu_weights == weight_type();
}

std::string Inference::arithmetic() const {
  const auto products = ops_->compute_type();
  const bool exact = weight_type() == products || (model_.source && weights::is_bfloat16(*model_.source));
  return exact ? to_string(products) : fmt::format("{}, rounded weights", to_string(products));
}

void Inference::forget_prefixes() {
  for (const auto& engine : parts_.engines) engine->forget_prefixes();
}

PrefixUse Inference::prefix_use() const {
  PrefixUse sum;
  for (const auto& engine : parts_.engines) {
    const auto use = engine->prefix_use();
    sum.hits += use.hits, sum.tokens += use.tokens, sum.snapshots += use.snapshots, sum.bytes += use.bytes;
  }
  return sum;
}

void Inference::prepare() {
  for (const auto& engine : parts_.engines) engine->prepare();
  for (const auto& scorer : parts_.scorers) scorer->prepare();
}

/// For sequences of up to `tokens` tokens.
Tensor Inference::take_scratch(std::int64_t tokens, Arena& arena) const {
  arena.category("scratch");
  return arena.allocate(DType::u8, {ops_->scratch_bytes(Pass::op_shapes(model_.config, tokens))});
}

/// Those of each plan whose settings are given.
Inference::Parts Inference::make_parts(const std::vector<model::PatternPlan>& plans,
                                       const EngineSettings* engine, const ScorerSettings* scorer,
                                       Arena& arena) const {
  Parts parts;
  for (const auto& plan : plans) {
    if (engine != nullptr)
      parts.engines.push_back(std::make_unique<Engine>(plan, *engine, *weights_, *ops_, arena));
    if (scorer != nullptr)
      parts.scorers.push_back(std::make_unique<Scorer>(plan, *scorer, *weights_, *ops_, arena));
  }
  parts.scratch = take_scratch(engine != nullptr ? engine->tokens : scorer->tokens, arena);
  return parts;
}

std::int64_t Inference::limit() const {
  return available_ < 0 ? available_ : available_ - weight_memory_->total_bytes();
}

/// The most sequences that fit, of those asked for: their caches may be as large as their tokens make them.
EngineSettings Inference::fit(const std::vector<model::PatternPlan>& plans, const EngineRequest& request,
                              const ScorerSettings* scorer) const {
  const bool gpu = ops_->device().kind == DeviceKind::cuda;
  EngineSettings settings{.tokens = model_.tokens, .rope_scale = model_.rope_scale};
  settings.rows = request.rows > 0 ? request.rows : gpu ? 4096 : 512;
  settings.prefix_bytes = request.prefix_bytes / std::ssize(plans);
  for (const auto& plan : plans)
    Engine::check_prefix_bytes(model_.config, plan, settings, ops_->compute_type(), plans.size() > 1);
  const auto with = [&](std::int64_t slots) {
    auto result = settings;
    result.slots = slots, result.sequences = static_cast<double>(slots);
    return result;
  };
  const auto bytes = [&](std::int64_t slots) {
    Arena counted(ops_->device());
    const auto settings_of_slots = with(slots);
    make_parts(plans, &settings_of_slots, scorer, counted);
    return counted.total_bytes();
  };
  // A CPU shares its memory with all else that runs there.
  const auto most = gpu || limit() < 0 ? limit() : limit() / 2;
  const auto wanted = request.slots > 0 ? request.slots : gpu ? EngineRequest::most_slots : std::int64_t{64};
  if (most < 0) return with(wanted);
  if (request.prefix_bytes > most) {  // before its snapshots are planned
    fail(
        "--prefix-cache: {:.1f} GiB are asked for, and there are {:.1f} GiB beside the model's weights; give "
        "less",
        gib(request.prefix_bytes), gib(most));
  }
  const auto fitting = largest_fitting(wanted, most, bytes);
  if (fitting == 0) {
    fail(
        "{}: one sequence of {} tokens{} needs {:.1f} GiB beside the model's weights ({:.1f} GiB), and there "
        "are {:.1f} GiB; "
        "give a shorter --length, or a sparser --pattern{}{}",
        to_string(ops_->device()), model_.tokens, plans.size() > 1 ? " for each pattern" : "", gib(bytes(1)),
        gib(weight_bytes()), gib(most), plans.size() > 1 ? ", or fewer of them" : "",
        request.prefix_bytes > 0 ? ", or a smaller --prefix-cache" : "");
  }
  return with(fitting);
}

template <typename Make>
void Inference::take_memory(Make make) {
  parts_ = {};
  memory_ = std::make_unique<Arena>(ops_->device());
  parts_ = make(*memory_);
  if (available_ >= 0 && memory_->total_bytes() > limit()) {
    fail("{}: the model needs {:.1f} GiB beside its weights ({}), and there are {:.1f} GiB",
         to_string(ops_->device()), gib(memory_->total_bytes()), session::describe_memory(*memory_),
         gib(limit()));
  }
  memory_->commit();
  parts_ = make(*memory_);
  ops_->use_scratch(parts_.scratch);
}

}  // namespace ratplus::infer
