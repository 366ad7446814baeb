#include "data/versions.h"

#include <zlib.h>
#include <zstd.h>

#include "data/hdf5.h"

namespace ratplus::data {

std::vector<LibraryVersion> data_versions() {
  return {{"HDF5", hdf5::version()}, {"zlib", zlibVersion()}, {"zstd", ZSTD_versionString()}};
}

}  // namespace ratplus::data
