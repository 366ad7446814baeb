#include "data/dataset/document_lengths.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "data/dataset/shard.h"

namespace ratplus::data {

DocumentLengths document_lengths(const std::filesystem::path& directory, const Manifest& manifest,
                                 Split split) {
  constexpr double steps = 64;
  std::map<int, std::int64_t> histogram;
  DocumentLengths lengths;
  lengths.shortest = std::numeric_limits<std::int64_t>::max();
  for (const auto& entry : manifest.shards(split)) {
    const auto offsets = ShardReader(directory / entry.file).document_offsets();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i, ++lengths.documents) {
      const auto length = offsets[i + 1] - offsets[i];
      lengths.shortest = std::min(lengths.shortest, length);
      lengths.longest = std::max(lengths.longest, length);
      ++histogram[static_cast<int>(
          std::lround(steps * std::log2(static_cast<double>(std::max<std::int64_t>(length, 1)))))];
    }
  }
  if (lengths.documents == 0) return {};
  const auto quantile = [&](double share) {
    std::int64_t seen = 0;
    for (const auto& [step, count] : histogram) {
      seen += count;
      if (static_cast<double>(seen) >= share * static_cast<double>(lengths.documents)) {
        return std::clamp(static_cast<std::int64_t>(std::lround(std::exp2(step / steps))), lengths.shortest,
                          lengths.longest);
      }
    }
    return lengths.longest;
  };
  lengths.tenth = quantile(0.1);
  lengths.median = quantile(0.5);
  lengths.nine_tenths = quantile(0.9);
  lengths.mean = static_cast<double>(manifest.tokens(split)) / static_cast<double>(lengths.documents);
  return lengths;
}

}  // namespace ratplus::data
