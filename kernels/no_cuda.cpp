// What the CUDA backend would define, in a build without it.
#include "base/error.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/versions.h"
#include "kernels/ops.h"

namespace ratplus {
namespace {

[[noreturn]] void fail_without_cuda() {
  fail(
      "this ratplus was built without CUDA; build it where nvcc is (cmake -DRATPLUS_CUDA=ON), or set "
      "job.device "
      "= \"cpu\"");
}

}  // namespace

int cuda_device_count() {
  return 0;
}

std::string cuda_missing() {
  return "";
}

std::string cuda_device_id(int) {
  fail_without_cuda();
}

std::unique_ptr<Ops> make_cuda_ops(int, DType, bool) {
  fail_without_cuda();
}

namespace cuda {

std::vector<LibraryVersion> versions() {
  return {};
}

void* allocate(Device, std::int64_t) {
  fail_without_cuda();
}
void release(Device, void*) noexcept {}
std::int64_t available_memory(Device) {
  fail_without_cuda();
}
bool lock_pages(Device, void*, std::int64_t) {
  return false;
}
void unlock_pages(Device, void*) noexcept {}

}  // namespace cuda
}  // namespace ratplus
