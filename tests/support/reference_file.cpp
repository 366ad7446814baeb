#include "tests/support/reference_file.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "lib/config/mixer_toml.h"

namespace ratplus::test {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

}  // namespace

model::ModelConfig model_of(const hdf5::Group& group) {
  model::ModelConfig config;
  config.layers = group.integer_attribute("layers");
  config.width = group.integer_attribute("width");
  config.head_dim = group.integer_attribute("head_dim");
  config.vocab_size = group.integer_attribute("vocab_size");
  if (group.has_attribute("mixer")) {
    config.mixers = config::parse_mixers(group.string_attribute("mixer"), "mixer");
    config.kv_heads = group.integer_attribute("kv_heads");
    if (config.kv_heads == config.heads()) config.kv_heads = 0;
  } else {
    config.mixers = {{group.integer_attribute("recurrence") != 0 ? model::MixerKind::ratplus
                                                                 : model::MixerKind::gated_attention}};
  }
  config.rope_base = group.real_attribute("rope_base");
  config.norm_eps = group.real_attribute("norm_eps");
  return config;
}

model::PatternPlan plan_of(const std::string& text) {
  std::vector<std::vector<Pattern>> layers;
  for (const auto& layer : split(text, ';')) {
    auto& heads = layers.emplace_back();
    for (const auto& head : split(layer, '|')) heads.push_back(parse_pattern(head));
  }
  return model::PatternPlan(layers);
}

void load_weights(session::Session& session, const ReferenceFile& file, const std::string& group) {
  auto& store = session.store();
  for (std::size_t u = 0; u < store.units().size(); ++u) {
    const auto owned = store.owned(u);
    std::vector<float> master(static_cast<std::size_t>(owned.size()));
    for (const auto& slot : store.units()[u].slots) {
      const auto values = file.array<float>(group + "/" + slot.name);
      require(static_cast<std::int64_t>(values.size()) == slot.numel, "{} has {} elements", slot.name,
              values.size());
      for (std::int64_t i = std::max(owned.begin, slot.offset);
           i < std::min(owned.end, slot.offset + slot.numel); ++i) {
        master[static_cast<std::size_t>(i - owned.begin)] = values[static_cast<std::size_t>(i - slot.offset)];
      }
    }
    if (owned.size() > 0) session.ops().upload(store.master(u), master.data());
  }
  store.publish_masters();
}

std::vector<float> parameter(Ops& ops, const Tensor& unit_values, const parallel::ParameterSlot& slot) {
  std::vector<float> values(static_cast<std::size_t>(slot.numel));
  ops.download(values.data(), unit_values.slice(0, slot.offset, slot.offset + slot.numel));
  return values;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  require(a.size() == b.size(), "{} and {} elements compared", a.size(), b.size());
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - double{b[i]}, 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(difference / norm);  // not a number where both are zero: a check then fails
}

}  // namespace ratplus::test
