#include "parallel/versions.h"

#include <mpi.h>

#include <array>

#include "parallel/nccl_communicator.h"

namespace ratplus::parallel {

std::vector<LibraryVersion> parallel_versions() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  std::string mpi(text.data(), static_cast<std::size_t>(length));
  while (!mpi.empty() && (mpi.back() == '\n' || mpi.back() == '\0' || mpi.back() == ' ')) mpi.pop_back();
  std::vector<LibraryVersion> versions = {{"MPI", std::move(mpi)}};
  if (auto nccl = nccl_version(); !nccl.empty()) versions.push_back({"NCCL", std::move(nccl)});
  return versions;
}

}  // namespace ratplus::parallel
