#include "kernels/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "kernels/cuda/device_memory.h"

namespace ratplus {
namespace {

/// Has the kernel map every page now, by several threads: one alone fills a few GB a second.
void touch(void* data, std::int64_t bytes) {
  constexpr std::int64_t worth_a_thread = std::int64_t{256} << 20;
  const auto threads = std::clamp<std::int64_t>(bytes / worth_a_thread, 1,
                                                std::clamp(std::thread::hardware_concurrency(), 1U, 8U));
  std::vector<std::jthread> others;
  for (std::int64_t i = 0; i < threads; ++i) {
    const auto from = bytes / threads * i;
    const auto to = i + 1 == threads ? bytes : bytes / threads * (i + 1);
    const auto clear = [data, from, to] {
      std::memset(static_cast<char*>(data) + from, 0, static_cast<std::size_t>(to - from));
    };
    try {
      others.emplace_back(clear);
    } catch (const std::system_error&) {  // no more threads to be had
      clear();
    }
  }
}

}  // namespace

HostMemory::HostMemory(Device device, std::int64_t bytes) : device_(device), bytes_(bytes) {
  if (bytes == 0) return;
  const auto size = static_cast<std::size_t>(bytes);
  data_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    fail("{:.1f} GiB of host memory were not to be had: {}", gib(bytes), std::strerror(errno));
  }
  madvise(data_, size, MADV_HUGEPAGE);  // quicker to map and to lock; without it all works as well
  try {
    touch(data_, bytes);
    if (device.kind == DeviceKind::cuda) locked_ = cuda::lock_pages(device, data_, bytes);
  } catch (...) {
    release();
    throw;
  }
}

HostMemory::HostMemory(HostMemory&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      locked_(std::exchange(other.locked_, false)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
  if (this == &other) return *this;
  release();
  device_ = other.device_;
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  locked_ = std::exchange(other.locked_, false);
  return *this;
}

void HostMemory::release() noexcept {
  if (data_ == nullptr) return;
  if (locked_) cuda::unlock_pages(device_, data_);
  munmap(data_, static_cast<std::size_t>(bytes_));
  data_ = nullptr;
}

}  // namespace ratplus
