#include "lib/train/half.h"

#include "kernels/error.h"

namespace ratplus::train {

HalfResult run_half(SessionParts& parts, const model::PatternPlan& pattern, const RankBatch& batch,
                    std::int64_t counted, double learning_rate) {
  const auto rows = static_cast<std::size_t>(parts.model->shapes().rows());
  require(!batch.inputs.empty() && batch.inputs.size() % rows == 0,
          "a batch of {} tokens in micro-batches of {}", batch.inputs.size(), rows);
  auto& store = *parts.store;
  auto& model = *parts.model;
  store.begin_update();
  for (std::size_t at = 0; at < batch.inputs.size(); at += rows) {
    store.begin_micro_batch(at + rows == batch.inputs.size());
    model.forward_backward(batch.inputs.subspan(at, rows), batch.labels.subspan(at, rows), pattern,
                           1.0 / static_cast<double>(counted));
  }
  HalfResult result;
  result.loss_sum = model.take_loss();
  result.gradient_norm = parts.optimizer->update(learning_rate);
  return result;
}

}  // namespace ratplus::train
