// The tokenizer's file behind what a user names.
#pragma once

#include <filesystem>

namespace ratplus::generate {

/// Of a dataset's directory its tokenizer; of weights (a checkpoint, a run, a .pth file, safetensors) the tokenizer of the
/// dataset that their job names; `given` itself if it is another file. Throws Error naming what is missing, or a dataset that
/// is of another tokenizer than the weights.
std::filesystem::path tokenizer_of(const std::filesystem::path& given);

}  // namespace ratplus::generate
