// Accuracy of predictions on samples with labels.
#pragma once

#include <cstdint>
#include <span>

namespace ratplus::evaluation {

/// Shares in [0, 1].
struct Accuracy {
  double token = 0;       ///< of the counted positions: their label has the largest logit
  double completion = 0;  ///< of the completions: all of their positions are such
};

/// A completion is a maximal run of counted positions (labels >= 0) of one sample.
struct HitCounts {
  std::int64_t tokens = 0;
  std::int64_t token_hits = 0;
  std::int64_t completions = 0;
  std::int64_t completion_hits = 0;

  /// Adds samples: labels and hits (Ops::hits) are [samples, T].
  void add(std::span<const std::int32_t> labels, std::span<const std::int32_t> hits,
           std::int64_t sequence_length);
  /// Shares of hits; at least one position must count.
  Accuracy accuracy() const;
};

}  // namespace ratplus::evaluation
