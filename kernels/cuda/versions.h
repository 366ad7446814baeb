// Versions of the CUDA libraries and of the driver. None in a build without CUDA (kernels/no_cuda.cpp).
#pragma once

#include <vector>

#include "kernels/versions.h"

namespace ratplus::cuda {

std::vector<LibraryVersion> versions();

}  // namespace ratplus::cuda
