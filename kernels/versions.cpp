#include "kernels/versions.h"

#include <cblas.h>

#include "kernels/cuda/versions.h"

namespace ratplus {

std::vector<LibraryVersion> kernel_versions() {
  std::vector<LibraryVersion> versions = {{"OpenBLAS", openblas_get_config()}};
  for (auto& each : cuda::versions()) versions.push_back(std::move(each));
  return versions;
}

}  // namespace ratplus
