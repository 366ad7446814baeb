// Writes a model's weights as safetensors: one file, or several with an index. Complete or absent.
#pragma once

#include "lib/weights/convert.h"

namespace ratplus::weights {

void write_safetensors(WeightsSource& source, const std::filesystem::path& file,
                       const ExportOptions& options);
/// `index` is NAME.safetensors.index.json; beside it come NAME-00001-of-00003.safetensors, ...
void write_sharded_safetensors(WeightsSource& source, const std::filesystem::path& index,
                               const ExportOptions& options);

}  // namespace ratplus::weights
