// HostMemory: host memory to which a device copies at the full rate of its link.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/device.h"

namespace ratplus {

/// Owned memory of this host, zeroed, every page there from the start. For a GPU its pages are locked where the system
/// allows it: a copy then goes straight there, instead of through a small buffer of the driver's. Movable, not copyable.
class HostMemory {
 public:
  HostMemory() = default;
  /// `device`: the one that will copy to and from here. Throws Error where the host has not that much.
  HostMemory(Device device, std::int64_t bytes);
  ~HostMemory() { release(); }
  HostMemory(HostMemory&& other) noexcept;
  HostMemory& operator=(HostMemory&& other) noexcept;
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  std::int64_t bytes() const { return bytes_; }
  /// Whether its pages are locked. False on a CPU, where no copy needs it.
  bool locked() const { return locked_; }
  /// The memory as elements of a plain type.
  template <typename T>
  std::span<T> as() const {
    return {static_cast<T*>(data_), static_cast<std::size_t>(bytes_) / sizeof(T)};
  }

 private:
  void release() noexcept;

  Device device_{};
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
  bool locked_ = false;
};

}  // namespace ratplus
