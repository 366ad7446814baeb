// Whether a dataset is whole: every token of every shard, and its tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"

namespace ratplus::data {

/// Reads both splits and the tokenizer's file, and compares them with the manifest and the checksums that there are.
/// Returns what is wrong, a line for each file; empty if nothing is. `progress` gets tokens (or positions of samples) read
/// since the last call; what it throws besides Error ends the work.
std::vector<std::string> verify_dataset(const std::filesystem::path& directory, const Manifest& manifest,
                                        const std::function<void(std::int64_t)>& progress);

}  // namespace ratplus::data
