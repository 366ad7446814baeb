// A small model whose every element is known, as tests/reference/make_checkpoints.py makes it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lib/weights/convert.h"
#include "lib/weights/source.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::test {

inline const model::ModelConfig small_model{.layers = 2, .width = 8, .head_dim = 4, .vocab_size = 10};

inline std::filesystem::path stored(const std::string& name) {
  return std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data" / name;
}

/// Element i of the n-th tensor.
inline float known_value(std::int64_t n, std::int64_t i) {
  return static_cast<float>((7 * i + 13 * n) % 61 - 30) / 8;
}

/// A parameter's elements, read in pieces of odd sizes.
inline std::vector<float> elements_of(weights::WeightsSource& source, const weights::Parameter& parameter) {
  const auto offset = source.units()[parameter.unit].slots[parameter.slot].offset;
  std::vector<float> all(static_cast<std::size_t>(parameter.numel()));
  for (std::int64_t begin = 0; begin < parameter.numel(); begin += 37) {
    const auto end = std::min<std::int64_t>(begin + 37, parameter.numel());
    source.read(parameter.unit, {offset + begin, offset + end}, all.data() + begin);
  }
  return all;
}

/// Elements that are not those of make_checkpoints.py.
inline int wrong_elements(weights::WeightsSource& source, const std::string& but_for = "") {
  int wrong = 0;
  const auto parameters = weights::parameters_of(source, {});
  for (std::size_t n = 0; n < parameters.size(); ++n) {
    if (parameters[n].name == but_for) continue;
    const auto elements = elements_of(source, parameters[n]);
    for (std::size_t i = 0; i < elements.size(); ++i)
      wrong += elements[i] != known_value(static_cast<std::int64_t>(n), static_cast<std::int64_t>(i));
  }
  return wrong;
}

/// The stored file that most tests begin with.
inline std::unique_ptr<weights::WeightsSource> open_small(const std::string& name = "task_bfloat16.pth") {
  return weights::open_source(stored(name), small_model);
}

}  // namespace ratplus::test
