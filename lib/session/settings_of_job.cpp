#include "lib/session/settings_of_job.h"

namespace ratplus::session {

SessionSettings session_settings(const config::JobConfig& job) {
  return {.model = job.model,
          .shapes = {job.data.micro_batch, job.data.sequence_length, job.job.recompute},
          .use = parallel::Use::training,
          .parallel = job.parallel,
          .optimizer = {.beta1 = job.optimizer.beta1,
                        .beta2 = job.optimizer.beta2,
                        .eps = job.optimizer.eps,
                        .weight_decay = job.optimizer.weight_decay,
                        .clip = job.optimizer.clip},
          .device = job.job.device,
          .precision = job.job.precision,
          .deterministic = job.job.deterministic,
          .threads = job.job.threads};
}

optim::Schedule schedule_of(const config::JobConfig& job) {
  return {.steps = job.schedule.steps,
          .peak = job.schedule.peak_lr,
          .floor = job.schedule.floor_lr,
          .warmup = job.schedule.warmup,
          .shape = job.schedule.shape,
          .decay = job.schedule.decay,
          .decay_shape = job.schedule.decay_shape};
}

std::vector<Update> updates(const config::JobConfig& job) {
  std::vector<Update> result;
  if (job.job.recipe == config::Recipe::joint) {
    result.push_back({job.job.joint_pattern.describe(), job.job.joint_pattern});
  }
  result.push_back({job.job.pattern.describe(), job.job.pattern});
  return result;
}

}  // namespace ratplus::session
