#include "lib/model/mixers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace ratplus::model {

std::vector<MixerConfig> ModelConfig::distinct_mixers() const {
  std::vector<MixerConfig> distinct;
  for (const auto& mixer : mixers) {
    if (std::ranges::find(distinct, mixer) == distinct.end()) distinct.push_back(mixer);
  }
  return distinct;
}

const char* to_string(MixerKind kind) {
  return with_mixer(kind, []<typename M>(std::type_identity<M>) { return M::name; });
}

bool parse_mixer(std::string_view name, MixerKind& kind) {
  bool found = false;
  for_each_mixer([&]<typename M>(std::type_identity<M>) {
    if (name != M::name) return;
    kind = M::kind;
    found = true;
  });
  return found;
}

std::string describe_mixers(const ModelConfig& config) {
  const auto title = [](const MixerConfig& mixer) {
    return with_mixer(mixer.kind, []<typename M>(std::type_identity<M>) { return M::title; });
  };
  const auto distinct = config.distinct_mixers();
  if (distinct.size() == 1) return title(distinct.front());
  std::vector<std::string> parts;
  for (const auto& mixer : distinct) {
    parts.push_back(fmt::format("{} x {}", std::ranges::count(config.mixers, mixer), title(mixer)));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace ratplus::model
