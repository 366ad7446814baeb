// Mixers: every mixer that a block can hold. A new one is a file with its parameters, forward, backward and cost
// (gated_attention.h shows the form), a MixerKind, and an entry in Mixer below.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "lib/model/attention.h"
#include "lib/model/gated_attention.h"
#include "lib/model/pattern_plan.h"
#include "lib/model/rat.h"
#include "lib/model/rnn.h"

namespace ratplus::model {

using Mixer =
    std::variant<RatPlusMixer, GatedAttentionMixer, AttentionMixer, LocalAttentionMixer, RatMixer, RnnMixer>;

/// Calls f(std::type_identity<M>{}) with the class M of a kind; returns what f returns.
template <typename F>
decltype(auto) with_mixer(MixerKind kind, F&& f) {
  const auto pick = [&]<typename First, typename... Rest>(
                        auto&& self, std::type_identity<First> first,
                        std::type_identity<Rest>... rest) -> decltype(auto) {
    if constexpr (sizeof...(Rest) == 0) {
      require(kind == First::kind, "a mixer of unknown kind {}", static_cast<int>(kind));
      return f(first);
    } else {
      if (kind == First::kind) return f(first);
      return self(self, rest...);
    }
  };
  return [&]<typename... M>(std::type_identity<std::variant<M...>>) -> decltype(auto) {
    return pick(pick, std::type_identity<M>{}...);
  }(std::type_identity<Mixer>{});
}

/// Calls f(std::type_identity<M>{}) for every mixer.
template <typename F>
void for_each_mixer(F&& f) {
  [&]<typename... M>(std::type_identity<std::variant<M...>>) {
    (f(std::type_identity<M>{}), ...);
  }(std::type_identity<Mixer>{});
}

/// "ratplus": the name in job files and checkpoints.
const char* to_string(MixerKind kind);
/// The sizes that a kind has.
std::vector<MixerSize> sizes_of(MixerKind kind);
/// A mixer with the sizes that its kind has where none are given.
MixerConfig default_mixer(MixerKind kind);
/// The mixer's own pattern; empty where it takes the job's.
std::optional<Pattern> own_pattern(const MixerConfig& mixer);
/// "RAT+", "RAT (chunk 16, groups 2)".
std::string describe(const MixerConfig& mixer);
/// Throws Error unless the sizes of the mixers, and kv_heads, fit the model's heads. It begins with the place of
/// model.mixer or of model.kv_heads ("job.toml:3: model.mixer").
void check_sizes(const ModelConfig& model, const std::string& mixer_where, const std::string& kv_where);
/// Throws Error, beginning with `where`, unless the plan fits the model: its layers and heads, and dense where a layer's
/// mixer takes no pattern.
void check_pattern(const PatternPlan& plan, const ModelConfig& model, const std::string& where);
/// The kind of this name; false where there is none.
bool parse_mixer(std::string_view name, MixerKind& kind);
/// "RAT+", "6 x RAT+, 6 x gated attention", "attention, keys of 4 heads": the mixers of a model, for tables and logs.
std::string describe_mixers(const ModelConfig& config);

}  // namespace ratplus::model
