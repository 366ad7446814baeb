#include "kernels/cuda/staging.h"

#include <cstring>

#include "kernels/cuda/checks.h"

namespace ratplus::cuda {

Staging::Staging() {
  for (Slot& slot : slots_) {
    check_cuda(cudaMallocHost(&slot.memory, slot_bytes), "allocating pinned memory");
    check_cuda(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "creating an event");
  }
}

Staging::~Staging() {
  for (const Slot& slot : slots_) {
    cudaEventDestroy(slot.copied);
    cudaFreeHost(slot.memory);
  }
}

void Staging::upload(void* device, const void* host, std::int64_t bytes, cudaStream_t stream) {
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  check_cuda(cudaEventSynchronize(slot.copied), "waiting for an upload");  // its last use, long ago
  std::memcpy(slot.memory, host, static_cast<std::size_t>(bytes));
  check_cuda(
      cudaMemcpyAsync(device, slot.memory, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream),
      "uploading");
  check_cuda(cudaEventRecord(slot.copied, stream), "recording an event");
}

}  // namespace ratplus::cuda
