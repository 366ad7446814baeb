// How long the documents of a dataset are.
#pragma once

#include <cstdint>
#include <filesystem>

#include "data/dataset/manifest.h"

namespace ratplus::data {

/// Tokens a document, its end-of-text token included. Quantiles are those of a histogram of 64 steps an octave: to 1 %.
struct DocumentLengths {
  std::int64_t documents = 0;
  std::int64_t shortest = 0;
  std::int64_t tenth = 0;
  std::int64_t median = 0;
  std::int64_t nine_tenths = 0;
  std::int64_t longest = 0;
  double mean = 0;
};

/// Of one split of the dataset in `directory`; all zero where it has no documents. Holds the lengths of one shard in memory
/// at a time. Throws Error naming a shard that cannot be read.
DocumentLengths document_lengths(const std::filesystem::path& directory, const Manifest& manifest,
                                 Split split);

}  // namespace ratplus::data
