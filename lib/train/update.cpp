#include "lib/train/update.h"

#include <array>
#include <cmath>

#include "base/error.h"

namespace ratplus::train {

UpdateResult run_update(session::SessionParts& parts, const model::PatternPlan& pattern,
                        const RankBatch& batch, std::int64_t counted, double learning_rate,
                        const UpdateFault& fault) {
  const auto rows = static_cast<std::size_t>(parts.model->shapes().rows());
  require(!batch.inputs.empty() && batch.inputs.size() % rows == 0,
          "a batch of {} tokens in micro-batches of {}", batch.inputs.size(), rows);
  auto& store = *parts.store;
  auto& model = *parts.model;
  store.begin_update();
  const double scale = 1.0 / static_cast<double>(counted) + fault.gradient;
  for (std::size_t at = 0; at < batch.inputs.size(); at += rows) {
    store.begin_micro_batch(at + rows == batch.inputs.size());
    model.forward_backward(batch.inputs.subspan(at, rows), batch.labels.subspan(at, rows), pattern, scale);
  }
  UpdateResult result;
  result.loss_sum = model.take_loss() + fault.loss;
  std::array sums = {result.loss_sum, parts.optimizer->squared_norm()};
  parts.sum(sums);
  result.loss = sums[0] / static_cast<double>(counted);
  result.gradient_norm = std::sqrt(sums[1]);
  result.updated = std::isfinite(result.loss) && std::isfinite(result.gradient_norm);
  if (result.updated) parts.optimizer->update(learning_rate, result.gradient_norm);
  return result;
}

}  // namespace ratplus::train
