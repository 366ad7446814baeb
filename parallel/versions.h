// The libraries by which ranks talk to each other.
#pragma once

#include <vector>

#include "base/library_version.h"

namespace ratplus::parallel {

/// MPI, and NCCL in a build with it. Needs no ranks to have been started.
std::vector<LibraryVersion> parallel_versions();

}  // namespace ratplus::parallel
