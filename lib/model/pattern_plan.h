// PatternPlan: the attention pattern of every layer and head of a model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/pattern.h"

namespace ratplus::model {

/// One pattern for the whole model, one a layer, or one a head of a layer.
class PatternPlan {
 public:
  PatternPlan() : PatternPlan(Pattern{}) {}
  /// One pattern everywhere.
  explicit PatternPlan(Pattern everywhere) : layers_{{everywhere}} {}
  /// layers[i] holds one pattern, or one a head; a single entry stands for all layers.
  explicit PatternPlan(std::vector<std::vector<Pattern>> layers) : layers_(std::move(layers)) {}

  HeadPatterns layer(std::int64_t i) const {
    return layers_.size() == 1 ? layers_.front() : layers_[static_cast<std::size_t>(i)];
  }
  const std::vector<std::vector<Pattern>>& layers() const { return layers_; }
  /// Throws Error, beginning with `where` (a key or an option), unless there are 1 or `layer_count` layers,
  /// each of 1 or `head_count` valid patterns.
  void validate(std::int64_t layer_count, std::int64_t head_count, const std::string& where) const;
  /// "dense", "16,256,4", "hybrid(64,0,0 x 12, dense x 12)", "heads(64,0,0 x 8, dense x 8)": short, for
  /// tables and logs. Plans that attend differently have different descriptions.
  std::string describe() const;

  friend bool operator==(const PatternPlan&, const PatternPlan&) = default;

 private:
  std::vector<std::vector<Pattern>> layers_;
};

/// Reads all that describe() writes, and report::pattern_label makes of it: every pattern that a table, a report or a
/// log prints. Throws Error for anything else.
PatternPlan parse_plan(std::string_view text);

}  // namespace ratplus::model
