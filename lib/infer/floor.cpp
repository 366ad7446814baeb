#include "lib/infer/floor.h"

#include <algorithm>

#include "lib/infer/weights.h"
#include "lib/model/parameters.h"

namespace ratplus::infer {
namespace {

double as_double(std::int64_t x) {
  return static_cast<double>(x);
}

}  // namespace

Floor step_floor(const model::ModelConfig& config, const CacheShape& shape, Types types, std::int64_t batch,
                 std::int64_t tokens_before, const Rates& rates) {
  const double b = as_double(batch), element = as_double(size_of(types.compute)),
               p = as_double(config.head_dim);
  Floor floor;
  floor.products = std::max(as_double(Weights::bytes(config, types.weights)) / rates.bandwidth,
                            2 * as_double(model::parameter_count(config)) * b / rates.products);
  double bytes = 0, operations = 0;
  for (const auto& layer : shape.layers) {
    for (const auto& group : layer.groups) {
      const auto keys = as_double(CacheShape::most_keys(shape.layouts[group.layout].layout, tokens_before));
      bytes += keys * as_double(std::ssize(group.keys)) * 2 * p * element;
      operations += 4 * keys * as_double(std::ssize(group.heads)) * p;
    }
  }
  bytes += 2 * as_double(shape.state_floats() * size_of(DType::f32));
  floor.attention = std::max(b * bytes / rates.bandwidth, b * operations / rates.products);
  return floor;
}

Floor prompt_floor(const model::ModelConfig& config, const CacheShape& shape, Types types,
                   std::int64_t tokens, const Rates& rates) {
  const double of_head = as_double(config.vocab_size) * as_double(config.width);
  const double parameters = as_double(model::parameter_count(config)) - of_head;
  // Behind the last layer's mixer, out_proj and the feed-forward have the last token alone.
  const double last_only = 9 * as_double(config.width) * as_double(config.width);
  Floor floor;
  floor.products = std::max(
      as_double(Weights::bytes(config, types.weights)) / rates.bandwidth,
      2 * (parameters * as_double(tokens) - last_only * as_double(tokens - 1) + of_head) / rates.products);
  double operations = 0;
  for (const auto& layer : shape.layers) {
    for (const auto& group : layer.groups) {
      operations +=
          4 * attended_pairs(group.pattern, tokens) * as_double(std::ssize(group.heads) * config.head_dim);
    }
  }
  floor.attention = operations / rates.products;
  return floor;
}

}  // namespace ratplus::infer
