// Times of one layer of a model, operation by operation and in all, beside its floors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "lib/bench/ops_bench.h"
#include "lib/model/config.h"
#include "lib/model/pattern_plan.h"
#include "lib/model/shapes.h"

namespace ratplus::bench {

struct LayerBenchSettings {
  model::ModelConfig model;
  model::PassShapes shapes;                  ///< recompute is none: a layer keeps all that its backward needs
  std::vector<model::PatternPlan> patterns;  ///< of the updates of a step
};

/// A mixer or a feed-forward layer, with its norm and its projections.
struct SublayerTimes {
  std::string name;
  std::vector<OpTime> operations;  ///< in the order of the forward; seconds between marks around each call
  double forward = 0;              ///< seconds of all calls without such marks, median
  double backward = 0;             ///< the same
  double product_operations = 0;   ///< of the projections
  double attention_operations = 0;
  double norm_bytes = 0;
  double inner_bytes = 0;  ///< what lies between the projections must move, were it one kernel a way

  /// Seconds: the projections at the product rate, the norm's bytes, and, of what lies between the projections, the larger
  /// of attention's operations and the bytes.
  double floor(const Ceilings& ceilings) const;
};

struct LayerTimes {
  std::string mixer;    ///< "RAT (chunk 16, groups 2)"
  std::string pattern;  ///< "16,0,0"; empty where the mixer does not attend
  SublayerTimes of_mixer, of_feed_forward;
  std::vector<Arena::Entry> memory;  ///< bytes of one layer, its workspace and the operations' scratch
};

/// One entry for each mixer of the model, and for each pattern that an update gives it.
std::vector<LayerTimes> time_layers(Ops& ops, const LayerBenchSettings& settings);

}  // namespace ratplus::bench
