// SampleSource: a dataset that samples are taken from, and its share of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/dataset/manifest.h"

namespace ratplus::data {

struct SampleSource {
  std::filesystem::path directory;
  double weight = 1;  ///< of its samples among those of all sources
  Manifest manifest;
};

/// All shards of all sources under one roof, for what looks at counts and identities alone: a file's name has its
/// dataset's directory before it. Throws Error naming two sources whose tokenizers differ.
Manifest combined_manifest(const std::vector<SampleSource>& sources);

std::vector<double> weights_of(const std::vector<SampleSource>& sources);

}  // namespace ratplus::data
