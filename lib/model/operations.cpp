#include "lib/model/operations.h"

#include "lib/model/attended_pairs.h"

namespace ratplus::model {

double update_operations(const ModelConfig& model, const PatternPlan& pattern, std::int64_t parameters,
                         std::int64_t sequences, std::int64_t tokens) {
  double operations = 6.0 * static_cast<double>(parameters) * static_cast<double>(sequences * tokens);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const auto heads = pattern.layer(layer);
    const double heads_each = static_cast<double>(model.heads()) / static_cast<double>(heads.size());
    for (const auto& head : heads) {
      // Two products forward and four backward (those of the mathematics), 2 P operations a pair each.
      operations +=
          12.0 * heads_each * static_cast<double>(model.head_dim * sequences) * attended_pairs(head, tokens);
    }
  }
  return operations;
}

}  // namespace ratplus::model
