// The dataset behind weights.
#pragma once

#include <filesystem>

#include "lib/checkpoint/manifest.h"

namespace ratplus::checkpoint {

/// The directory of the dataset that the weights' job names. Throws Error where there is no job or no such dataset, and where
/// the dataset is of another tokenizer than the weights.
std::filesystem::path dataset_of(const Info& info);

}  // namespace ratplus::checkpoint
