#include "lib/model/operations.h"

#include "lib/model/mixers.h"

namespace ratplus::model {

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
