// The libraries that files are read and written with.
#pragma once

#include <vector>

#include "base/library_version.h"

namespace ratplus::data {

/// HDF5, zlib and zstd.
std::vector<LibraryVersion> data_versions();

}  // namespace ratplus::data
