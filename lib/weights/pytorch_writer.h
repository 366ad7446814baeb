// Writes a model's weights as torch.save would: {"task": state dict, "ratplus": description}.
#pragma once

#include "lib/weights/convert.h"

namespace ratplus::weights {

/// Complete or absent: written beside and renamed.
void write_pytorch(WeightsSource& source, const std::filesystem::path& file, const ExportOptions& options);

}  // namespace ratplus::weights
