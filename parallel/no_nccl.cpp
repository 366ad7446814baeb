// The NCCL communicator in a build without NCCL.
#include "base/error.h"
#include "parallel/nccl_communicator.h"

namespace ratplus::parallel {

std::unique_ptr<Communicator> make_nccl_communicator(const Ops&, const World&, const std::vector<int>&) {
  fail(
      "this ratplus was built without NCCL, which several GPUs need; install it (nccl.h, libnccl) and build "
      "again, start a single rank, or set job.device = \"cpu\"");
}

std::string nccl_version() {
  return "";
}

}  // namespace ratplus::parallel
