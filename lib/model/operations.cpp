#include "lib/model/operations.h"

#include "lib/model/mixers.h"

namespace ratplus::model {

double attention_operations(const ModelConfig& model, HeadPatterns patterns, std::int64_t sequences,
                            std::int64_t tokens) {
  constexpr double each =
      operation::AttentionForward::operations_a_pair + operation::AttentionBackward::needed_a_pair;
  const double heads_each = static_cast<double>(model.heads()) / static_cast<double>(patterns.size());
  double operations = 0;
  for (const auto& pattern : patterns) {
    operations +=
        each * heads_each * static_cast<double>(model.head_dim * sequences) * attended_pairs(pattern, tokens);
  }
  return operations;
}

double update_operations(const ModelConfig& model, const PatternPlan& pattern, std::int64_t parameters,
                         std::int64_t sequences, std::int64_t tokens) {
  double operations = 6.0 * static_cast<double>(parameters) * static_cast<double>(sequences * tokens);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const LayerConfig config{model, model.mixer(layer)};
    operations += with_mixer(config.mixer.kind, [&]<typename M>(std::type_identity<M>) {
      return M::operations(config, pattern.layer(layer), sequences, tokens);
    });
  }
  return operations;
}

}  // namespace ratplus::model
