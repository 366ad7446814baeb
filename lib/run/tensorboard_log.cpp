#include "lib/run/tensorboard_log.h"

#include <cmath>
#include <vector>

namespace ratplus::run {

void TensorboardLog::write(const StepMetrics& metrics) {
  std::vector<tensorboard::Scalar> scalars;
  for (const auto& update : metrics.updates) {
    scalars.push_back({"loss/" + update.pattern, update.loss});
    scalars.push_back({"gradient_norm/" + update.pattern, update.gradient_norm});
  }
  scalars.push_back({"schedule/learning_rate", metrics.learning_rate});
  scalars.push_back({"schedule/tokens", static_cast<double>(metrics.tokens)});
  scalars.push_back({"throughput/tokens_per_second", metrics.tokens_per_second});
  scalars.push_back({"throughput/step_seconds", metrics.step_seconds});
  scalars.push_back({"throughput/data_wait_seconds", metrics.data_wait_seconds});
  scalars.push_back({"throughput/data_wait_share", metrics.data_wait_share});
  if (std::isfinite(metrics.share_of_peak)) {
    scalars.push_back({"throughput/share_of_peak", metrics.share_of_peak});
  }
  const auto add_bytes = [&](const char* tag, std::int64_t bytes) {
    if (bytes >= 0) scalars.push_back({tag, static_cast<double>(bytes)});
  };
  add_bytes("memory/memory_bytes", metrics.memory_bytes);
  add_bytes("memory/memory_available_bytes", metrics.memory_available_bytes);
  add_bytes("memory/host_memory_bytes", metrics.host_memory_bytes);
  scalars.push_back({"health/skipped_updates", static_cast<double>(metrics.skipped_updates)});
  if (metrics.health) scalars.push_back({"health/lag_seconds", metrics.health->lag_seconds});
  file_.write(metrics.step, scalars);
}

void TensorboardLog::write(const ValidationMetrics& metrics) {
  std::vector<tensorboard::Scalar> scalars;
  for (const auto& result : metrics.results) {
    scalars.push_back({"validation_loss/" + result.pattern, result.loss});
    scalars.push_back({"validation_perplexity/" + result.pattern, std::exp(result.loss)});
    if (!result.accuracy) continue;
    scalars.push_back({"validation_token_accuracy/" + result.pattern, result.accuracy->token});
    scalars.push_back({"validation_completion_accuracy/" + result.pattern, result.accuracy->completion});
  }
  scalars.push_back({"validation/seconds", metrics.seconds});
  file_.write(metrics.step, scalars);
}

void TensorboardLog::write(const CheckpointMetrics& metrics) {
  const std::vector<tensorboard::Scalar> scalars = {{"checkpoint/seconds", metrics.seconds},
                                                    {"checkpoint/stall_seconds", metrics.stall_seconds},
                                                    {"checkpoint/copy_seconds", metrics.copy_seconds}};
  file_.write(metrics.step, scalars);
}

}  // namespace ratplus::run
