// The tokenizer's file behind what a user names.
#pragma once

#include <filesystem>

namespace ratplus::checkpoint {

/// `given` itself if it is a file; of a dataset's directory its tokenizer; of a checkpoint or a run the tokenizer of the
/// dataset that its job names. Throws Error naming what is missing, or a dataset that is of another tokenizer than the
/// checkpoint.
std::filesystem::path tokenizer_of(const std::filesystem::path& given);

}  // namespace ratplus::checkpoint
