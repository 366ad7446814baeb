#include "lib/evaluation/accuracy.h"

namespace ratplus::evaluation {

void HitCounts::add(std::span<const std::int32_t> labels, std::span<const std::int32_t> hits,
                    std::int64_t sequence_length) {
  bool within = false, all_hits = false;  // of the completion at hand
  const auto end = [&] {
    if (within && all_hits) ++completion_hits;
    within = false;
  };
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (static_cast<std::int64_t>(i) % sequence_length == 0) end();
    if (labels[i] < 0) {
      end();
      continue;
    }
    if (!within) {
      within = all_hits = true;
      ++completions;
    }
    ++tokens;
    token_hits += hits[i];
    all_hits = all_hits && hits[i] != 0;
  }
  end();
}

Accuracy HitCounts::accuracy() const {
  return {static_cast<double>(token_hits) / static_cast<double>(tokens),
          static_cast<double>(completion_hits) / static_cast<double>(completions)};
}

}  // namespace ratplus::evaluation
