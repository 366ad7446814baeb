// The libraries that a room computes with, as they tell their versions at run time.
#pragma once

#include <vector>

#include "base/library_version.h"

namespace ratplus {

/// OpenBLAS; in a build with CUDA its runtime, cuBLASLt, cuDNN, and what the driver supports.
std::vector<LibraryVersion> kernel_versions();

}  // namespace ratplus
