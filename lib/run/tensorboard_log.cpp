#include "lib/run/tensorboard_log.h"

#include <fmt/core.h>

#include <cmath>
#include <type_traits>
#include <vector>

#include "lib/run/metrics_fields.h"

namespace ratplus::run {

namespace {

/// Adds a field that TensorBoard shows, with the tag "group/name", where its value is known.
struct AddScalarTo {
  std::vector<tensorboard::Scalar>& scalars;

  template <typename Value>
  void operator()(const Field& field, const Value& value) const {
    if constexpr (std::is_arithmetic_v<Value>) {
      const auto number = static_cast<double>(value);
      const bool known = std::isfinite(number) && !(field.negative_is_unknown && number < 0);
      if (*field.group != '\0' && known)
        scalars.push_back({fmt::format("{}/{}", field.group, field.name), number});
    }
  }
};

}  // namespace

void TensorboardLog::write(const StepMetrics& metrics) {
  std::vector<tensorboard::Scalar> scalars;
  for (const auto& update : metrics.updates) {
    for_each_update_field(update, [&](const Field& field, const auto& value) {
      if constexpr (std::is_arithmetic_v<std::decay_t<decltype(value)>>)
        scalars.push_back({fmt::format("{}/{}", field.group, update.pattern), value});
    });
  }
  for_each_step_field(metrics, AddScalarTo{scalars});
  if (metrics.health) for_each_health_field(*metrics.health, AddScalarTo{scalars});
  file_.write(metrics.step, scalars);
}

void TensorboardLog::write(const ValidationMetrics& metrics) {
  std::vector<tensorboard::Scalar> scalars;
  for (const auto& result : metrics.results) {
    for_each_result_number(result, [&](const char* name, double value) {
      scalars.push_back({fmt::format("validation_{}/{}", name, result.pattern), value});
    });
  }
  scalars.push_back({"validation/seconds", metrics.seconds});
  file_.write(metrics.step, scalars);
}

void TensorboardLog::write(const CheckpointMetrics& metrics) {
  std::vector<tensorboard::Scalar> scalars;
  for_each_checkpoint_field(metrics, AddScalarTo{scalars});
  file_.write(metrics.step, scalars);
}

}  // namespace ratplus::run
