// Writes a checkpoint of ours (lib/checkpoint) from weights of any source.
#pragma once

#include "lib/weights/convert.h"

namespace ratplus::weights {

/// Into a directory of this name, complete or absent.
void write_checkpoint(WeightsSource& source, const std::filesystem::path& directory,
                      const ExportOptions& options);
/// Whether the optimizer's state goes along: from a whole checkpoint to one of float32 weights.
bool keeps_optimizer(const WeightsSource& source, const ExportOptions& options);

}  // namespace ratplus::weights
