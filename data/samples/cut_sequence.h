// A sequence of T + 1 tokens as T inputs and their labels (docs/model.md, section 16).
#pragma once

#include <cstdint>
#include <span>

namespace ratplus::data {

/// tokens [T + 1] -> inputs [T], labels [T]: the next token, or -1 (left out) where the input is the
/// end-of-text token, since what follows it is another document. Returns the number of labels that count.
inline std::int64_t cut_sequence(std::span<const std::int32_t> tokens, std::int32_t end_of_text,
                                 std::span<std::int32_t> inputs, std::span<std::int32_t> labels) {
  std::int64_t counted = 0;
  for (std::size_t t = 0; t < inputs.size(); ++t) {
    inputs[t] = tokens[t];
    const bool predicts = tokens[t] != end_of_text;
    labels[t] = predicts ? tokens[t + 1] : -1;
    counted += predicts ? 1 : 0;
  }
  return counted;
}

}  // namespace ratplus::data
