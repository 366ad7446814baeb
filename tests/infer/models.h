// Small models of every mixer, and the patterns that inference is tested with.
#pragma once

#include <string>
#include <vector>

#include "kernels/ops.h"
#include "lib/model/config.h"
#include "lib/model/pattern_plan.h"

namespace ratplus::test {

struct InferenceCase {
  std::string name;
  model::ModelConfig config;
  model::PatternPlan plan;
};

/// Heads of 4 x 16 channels.
inline model::ModelConfig small_model(std::vector<model::MixerConfig> mixers, std::int64_t kv_heads = 0) {
  return {.layers = 3,
          .width = 64,
          .head_dim = 16,
          .kv_heads = kv_heads,
          .vocab_size = 97,
          .mixers = std::move(mixers),
          .init_std = 0.2};
}

inline std::vector<InferenceCase> inference_cases() {
  using model::MixerKind;
  using model::PatternPlan;
  using Layers = std::vector<std::vector<Pattern>>;
  constexpr auto none = Pattern::no_dilation;
  const auto ratplus = small_model({{}});
  const model::MixerConfig local{.kind = MixerKind::local_attention, .window = 20};
  const model::MixerConfig rat{.kind = MixerKind::rat, .chunk = 16, .groups = 2};
  std::vector<InferenceCase> cases;
  for (const Pattern pattern :
       {Pattern{1, 0, 0}, Pattern{16, 0, 4}, Pattern{16, 24, 4}, Pattern{64, 0, 0}, Pattern{64, 0, 4},
        Pattern{none, 32, 2}, Pattern{none, 0, 0}, Pattern{4, 3, 2}, Pattern{7, 130, 9}, Pattern{2, 1, 0},
        Pattern{none, 17, 0}}) {
    cases.push_back({"RAT+ " + to_string(pattern), ratplus, PatternPlan(pattern)});
  }
  cases.push_back({"RAT+ by layer", ratplus, PatternPlan(Layers{{{1, 0, 0}}, {{16, 0, 4}}, {{8, 20, 2}}})});
  if (cuda_device_count() > 0) {
    // Widths whose products take norms and come in chains, heads whose keys come in tiles.
    model::ModelConfig wide = ratplus;
    wide.width = 256, wide.head_dim = 64, wide.init_std = 0.1;
    for (const Pattern pattern : {Pattern{1, 0, 0}, Pattern{16, 24, 4}, Pattern{64, 0, 4}})
      cases.push_back({"wide RAT+ " + to_string(pattern), wide, PatternPlan(pattern)});
    cases.push_back(
        {"wide RAT+ by head", wide, PatternPlan(Layers{{{1, 0, 0}, {16, 0, 4}, {16, 24, 4}, {16, 0, 4}}})});
    wide.head_dim = 128;
    cases.push_back({"wide RAT+, heads of 128", wide, PatternPlan(Pattern{16, 24, 4})});
  }
  cases.push_back(
      {"RAT+ by head", ratplus, PatternPlan(Layers{{{1, 0, 0}, {16, 0, 4}, {16, 24, 4}, {16, 0, 4}}})});
  cases.push_back({"RAT+ by head, shared keys", small_model({{}}, 2),
                   PatternPlan(Layers{{{8, 0, 4}, {16, 24, 4}, {8, 0, 4}, {8, 0, 4}}})});
  cases.push_back({"RAT+ shared keys", small_model({{}}, 2), PatternPlan(Pattern{16, 24, 4})});
  cases.push_back({"gated attention", small_model({{.kind = MixerKind::gated_attention}}),
                   PatternPlan(Pattern{16, 24, 4})});
  cases.push_back(
      {"gated attention, one key", small_model({{.kind = MixerKind::gated_attention}}, 1), PatternPlan()});
  cases.push_back({"attention", small_model({{.kind = MixerKind::attention}}), PatternPlan()});
  cases.push_back({"attention, shared keys", small_model({{.kind = MixerKind::attention}}, 2),
                   PatternPlan(Pattern{8, 9, 1})});
  cases.push_back({"local attention", small_model({local}), PatternPlan()});
  cases.push_back({"rat", small_model({rat}), PatternPlan()});
  cases.push_back(
      {"rat, chunks of 7", small_model({{.kind = MixerKind::rat, .chunk = 7, .groups = 1}}), PatternPlan()});
  cases.push_back(
      {"rat, 4 groups", small_model({{.kind = MixerKind::rat, .chunk = 16, .groups = 4}}), PatternPlan()});
  cases.push_back({"rnn", small_model({{.kind = MixerKind::rnn, .memory = 64}}), PatternPlan()});
  cases.push_back(
      {"rat and local", small_model({rat, local, {.kind = MixerKind::rnn, .memory = 64}}), PatternPlan()});
  cases.push_back(
      {"attention and local", small_model({{.kind = MixerKind::attention}, local, local}), PatternPlan()});
  return cases;
}

}  // namespace ratplus::test
