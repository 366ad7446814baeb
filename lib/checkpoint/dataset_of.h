// The tokenizer's file behind what a user names.
#pragma once

#include <filesystem>

#include "lib/checkpoint/manifest.h"

namespace ratplus::checkpoint {

/// `given` itself if it is a file; of a dataset's directory its tokenizer; of a checkpoint or a run the tokenizer of the
/// dataset that its job names. Throws Error naming what is missing, or a dataset that is of another tokenizer than the
/// checkpoint.
std::filesystem::path tokenizer_of(const std::filesystem::path& given);

/// The directory of the dataset that the weights' job names. Throws Error where there is no job or no such dataset, and where
/// the dataset is of another tokenizer than the weights.
std::filesystem::path dataset_of(const Info& info);

}  // namespace ratplus::checkpoint
