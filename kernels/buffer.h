// Buffer: memory owned on a device. Arena: one Buffer cut into named tensors, planned before it is allocated.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/tensor.h"

namespace ratplus {

/// Owned, 256-byte aligned memory, zeroed; freed with the object. Movable, not copyable. Throws Error when
/// the device has not that much available.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device device, std::int64_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  /// Gives the memory up without freeing it.
  void leak() { data_ = nullptr; }
  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  /// A view of the whole buffer as elements of one type.
  Tensor as_tensor(DType dtype) const;

 private:
  void release();

  Device device_{};
  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Bytes that the device could still give this process (the CPU: without swapping, within the limits of its control
/// groups and of ulimit -v), or -1 where it cannot be told.
std::int64_t available_memory(Device device);
/// The same of the CPU's for one of `processes` alike on this host; in_group tells how many of these share a control
/// group (CgroupLimit::group).
std::int64_t available_host_memory(int processes, const std::function<int(std::uint64_t)>& in_group);

/// All memory of a job on one device, planned before it is allocated, so that the plan can be shown and the
/// steady state allocates nothing. Use: run the code that asks for tensors once on a fresh Arena (it counts
/// and hands out views that must not be touched), call commit(), run the same code again (now the views are
/// real).
///
///     Arena arena(device);
///     auto build = [&] { return Activations(arena, shapes); };
///     build();           // counts
///     arena.commit();    // allocates once
///     auto saved = build();
class Arena {
 public:
  explicit Arena(Device device) : device_(device) {}

  Device device() const { return device_; }
  /// Sums under this name in the plan ("weights", "activations", ...), until the next call.
  void category(const std::string& name) { category_ = name; }
  Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape);
  Tensor allocate(DType dtype, std::span<const std::int64_t> shape);

  /// Runs each of `count` alternatives, f(0), f(1), ...; their tensors lie in one place, as large as the largest needs:
  /// they are never in use at once.
  void overlay(std::size_t count, const std::function<void(std::size_t)>& f);

  /// Ends the counting pass: allocates all that was asked for, and restarts from the first request.
  void commit();
  bool committed() const { return !counting_; }
  /// Gives the memory up without freeing it: for a program on its way out while something may still write there.
  void leak() { buffer_.leak(); }

  struct Entry {
    std::string category;
    std::int64_t bytes;
  };
  /// Bytes by category, in order of first use.
  const std::vector<Entry>& plan() const { return plan_; }
  std::int64_t total_bytes() const { return total_; }

 private:
  Device device_;
  Buffer buffer_;
  std::string category_ = "other";
  std::vector<Entry> plan_;
  std::int64_t total_ = 0;   ///< bytes asked for in the counting pass
  std::int64_t cursor_ = 0;  ///< bytes handed out in this pass
  bool counting_ = true;
};

}  // namespace ratplus
