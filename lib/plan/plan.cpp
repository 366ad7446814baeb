#include "lib/plan/plan.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "lib/model/parameters.h"

namespace ratplus::plan {
namespace {

/// After every `every` steps and after the last.
std::int64_t times(std::int64_t steps, std::int64_t every) {
  if (every == 0 || every > steps) return 1;
  return steps / every + (steps % every != 0 ? 1 : 0);
}

/// Master weights and both moments of every unit, float32.
std::int64_t checkpoint_bytes(const model::ModelConfig& config) {
  std::int64_t elements = 0;
  for (const auto& unit : model::unit_layouts(config)) elements += unit.numel;
  return 3 * elements * size_of(DType::f32);
}

/// The newest ones, those of every keep_every steps, and the one that is being written; without a number of steps all but
/// those of keep_every.
std::int64_t kept_checkpoints(const config::JobConfig& job) {
  const auto& settings = job.checkpoint;
  if (job.schedule.steps == 0) return settings.every > 0 ? settings.keep + 1 : 1;
  const auto written = times(job.schedule.steps, settings.every);
  auto kept = std::min(settings.keep, written) + 1;
  if (settings.keep_every > 0) kept += job.schedule.steps / settings.keep_every;
  return std::min(written, kept);
}

std::int64_t export_bytes(const config::JobConfig& job, std::int64_t parameters) {
  if (job.checkpoint.export_type == config::Export::none) return 0;
  return parameters * (job.checkpoint.export_type == config::Export::float32 ? 4 : 2);
}

std::vector<std::string> cautions(const config::JobConfig& job, const Cluster& cluster) {
  std::vector<std::string> result = {fmt::format("{}: {}", cluster.gpu->name, cluster.gpu->evidence)};
  const auto& model = job.model;
  if (job.job.precision == DType::f32)
    result.emplace_back("job.precision = \"f32\": one job alone was measured, of width 512 on an H200");
  const int whole = job.job.precision == DType::f32 ? 4 : 8;  // channels that the kernels take at a time
  if (model.head_dim % whole != 0 || model.head_dim > 128)
    result.push_back(
        fmt::format("heads of {} channels take plain kernels, whose rate is a guess", model.head_dim));
  else if (model.head_dim != (job.job.precision == DType::f32 ? 64 : 128))
    result.push_back(fmt::format("attention's rates were measured with heads of {} channels",
                                 job.job.precision == DType::f32 ? 64 : 128));
  constexpr std::int64_t least_rows = 4096, least_width = 1024;
  if (model.width < least_width || job.data.micro_batch * job.data.sequence_length < least_rows) {
    result.push_back(
        fmt::format("products this small do not reach the rate of large ones (width {}, {} tokens a "
                    "micro-batch), so that steps "
                    "take longer",
                    model.width, job.data.micro_batch * job.data.sequence_length));
  }
  if (cluster.ranks() > 4) {
    result.emplace_back(
        "the model was compared with runs of 1b, 3b and 7b on one, two and four GPUs (docs/performance.md)");
  }
  if (cluster.nodes > 1) {
    result.push_back(fmt::format(
        "no run over several nodes has been measured; the network is taken to carry {:.3g} GB/s a "
        "GPU (--network)",
        cluster.network_bandwidth() / 1e9));
  }
  return result;
}

}  // namespace

std::int64_t Plan::all_checkpoint_bytes() const {
  std::int64_t bytes = 0;
  return __builtin_mul_overflow(checkpoint_bytes, checkpoints, &bytes)
             ? std::numeric_limits<std::int64_t>::max()
             : bytes;
}

Plan plan_job(const config::JobConfig& job, const Cluster& cluster) {
  if (job.job.device == DeviceChoice::cpu) {
    fail("{}: job.device = \"cpu\", and a plan is of GPUs; add --set job.device=cuda for what they would do",
         job.source);
  }
  Plan plan;
  plan.parameters = model::parameter_count(job.model);
  plan.memory = plan_memory(job, cluster);
  plan.steps = job.schedule.steps;
  plan.checkpoint_bytes = checkpoint_bytes(job.model);
  plan.checkpoints = kept_checkpoints(job);
  plan.export_bytes = export_bytes(job, plan.parameters);
  plan.cautions = cautions(job, cluster);
  if (!plan.memory.fits()) return plan;
  plan.step = plan_step(job, cluster);
  if (plan.steps == 0) return plan;
  plan.validations = times(plan.steps, job.log.validate_every);
  plan.seconds = plan.step.seconds * static_cast<double>(plan.steps) +
                 plan.step.validation_seconds * static_cast<double>(plan.validations);
  return plan;
}

}  // namespace ratplus::plan
