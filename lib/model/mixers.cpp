#include "lib/model/mixers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/units.h"

namespace ratplus::model {

std::vector<MixerConfig> ModelConfig::distinct_mixers() const {
  std::vector<MixerConfig> distinct;
  for (const auto& mixer : mixers) {
    if (std::ranges::find(distinct, mixer) == distinct.end()) distinct.push_back(mixer);
  }
  return distinct;
}

bool ModelConfig::may_be_dense() const {
  return std::ranges::any_of(
      mixers, [](const MixerConfig& mixer) { return own_pattern(mixer).value_or(Pattern{}).dense(); });
}

void ModelConfig::repeat_mixers() {
  std::vector<MixerConfig> all;
  for (std::int64_t layer = 0; layer < layers; ++layer) all.push_back(mixer(layer));
  mixers = std::move(all);
  if (distinct_mixers().size() == 1) mixers.resize(1);
}

const char* to_string(MixerKind kind) {
  return with_mixer(kind, []<typename M>(std::type_identity<M>) { return M::name; });
}

std::vector<MixerSize> sizes_of(MixerKind kind) {
  return with_mixer(kind, []<typename M>(std::type_identity<M>) { return M::sizes(); });
}

MixerConfig default_mixer(MixerKind kind) {
  MixerConfig mixer{.kind = kind};
  for (const auto& size : sizes_of(kind)) mixer.*size.field = size.value;
  return mixer;
}

std::optional<Pattern> own_pattern(const MixerConfig& mixer) {
  return with_mixer(mixer.kind, [&]<typename M>(std::type_identity<M>) { return M::own_pattern(mixer); });
}

void check_sizes(const ModelConfig& model, const std::string& mixer_where, const std::string& kv_where) {
  const auto heads = model.heads();
  const auto divisors = [&] {
    std::vector<std::int64_t> found;
    for (std::int64_t n = 1; n <= heads; ++n) {
      if (heads % n == 0) found.push_back(n);
    }
    return fmt::format("{}", fmt::join(found, ", "));
  };
  for (const auto& mixer : model.distinct_mixers()) {
    const char* name = to_string(mixer.kind);
    for (const auto& size : sizes_of(mixer.kind)) {
      if (mixer.*size.field >= size.least) continue;
      fail("{} = \"{}\": {} = {} is less than {}{}", mixer_where, name, size.name, mixer.*size.field,
           size.least,
           mixer.kind == MixerKind::rat && size.field == &MixerConfig::chunk
               ? "; chunks of one token are attention: use the mixer \"attention\", or longer chunks"
               : "; use at least that");
    }
    if (mixer.kind == MixerKind::rat && heads % mixer.groups != 0) {
      fail("{} = \"{}\": groups = {} does not divide the model's {} heads; use one of {}", mixer_where, name,
           mixer.groups, heads, divisors());
    }
    const bool shares =
        with_mixer(mixer.kind, []<typename M>(std::type_identity<M>) { return M::shares_keys; });
    if (model.kv_heads != 0 && !shares) {
      fail("{} = {}: the mixer \"{}\" has no heads of keys to share; leave model.kv_heads out", kv_where,
           model.kv_heads, name);
    }
  }
  if (model.kv_heads != 0 && heads % model.kv_heads != 0) {
    fail("{} = {} does not divide the model's {} heads; use one of {}, or 0 for one a head", kv_where,
         model.kv_heads, heads, divisors());
  }
}

void check_pattern(const PatternPlan& plan, const ModelConfig& model, const std::string& where) {
  plan.validate(model.layers, model.heads(), where);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const auto& mixer = model.mixer(layer);
    if (!own_pattern(mixer) || std::ranges::all_of(plan.layer(layer), &Pattern::dense)) continue;
    fail("{} is {}, but layer {} holds {}, which takes no pattern; leave it out{}", where,
         to_string(plan.layer(layer).front()), layer, describe(mixer),
         model.mixers.size() == 1 ? "" : ", or give a list of one a layer, dense for such layers");
  }
}

std::string describe(const MixerConfig& mixer) {
  const std::string title =
      with_mixer(mixer.kind, []<typename M>(std::type_identity<M>) { return M::title; });
  std::vector<std::string> sizes;
  for (const auto& size : sizes_of(mixer.kind))
    sizes.push_back(fmt::format("{} {}", size.name, mixer.*size.field));
  return sizes.empty() ? title : fmt::format("{} ({})", title, fmt::join(sizes, ", "));
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
  const auto distinct = config.distinct_mixers();
  std::vector<std::string> parts;
  for (const auto& mixer : distinct) {
    const auto count = std::ranges::count(config.mixers, mixer);
    parts.push_back(distinct.size() == 1 ? describe(mixer) : fmt::format("{} x {}", count, describe(mixer)));
  }
  if (config.kv_heads != 0) parts.push_back(fmt::format("keys of {}", counted(config.kv_heads, "head")));
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace ratplus::model
