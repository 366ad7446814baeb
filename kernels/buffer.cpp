#include "kernels/buffer.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "base/cgroup.h"
#include "base/error.h"
#include "base/units.h"
#include "kernels/cuda/device_memory.h"

namespace ratplus {
namespace {

constexpr std::int64_t alignment = 256;  // bytes; a multiple of every cache line and vector width

// Large buffers lie on huge pages where the system grants them: an operation reads a dozen tensors at once,
// and with 4 KiB pages the address translation alone costs it more than half of the memory bandwidth.
constexpr std::int64_t huge_page = 2 << 20;  // bytes

std::align_val_t alignment_of(std::int64_t bytes) {
  return std::align_val_t{static_cast<std::size_t>(bytes < huge_page ? alignment : huge_page)};
}

std::int64_t round_up(std::int64_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Views of the counting pass begin here: not null, so that they do not look absent, and not canonical, so
// that touching one faults at once.
constexpr std::uintptr_t counting_address = std::uintptr_t{1} << 62;

/// The value of a line "MemAvailable:   123 kB" of a file of /proc, in bytes; -1 where it does not say.
std::int64_t proc_bytes(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key)) return std::strtoll(line.c_str() + key.size(), nullptr, 10) << 10;
  }
  return -1;
}

/// What ulimit -v leaves to this process, or -1 without such a limit.
std::int64_t available_address_space() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return -1;
  const auto most = static_cast<std::int64_t>(
      std::min<rlim_t>(limit.rlim_cur, static_cast<rlim_t>(std::numeric_limits<std::int64_t>::max())));
  return std::max<std::int64_t>(most - std::max<std::int64_t>(proc_bytes("/proc/self/status", "VmSize:"), 0),
                                0);
}

std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < 0 || b < 0 ? std::max(a, b) : std::min(a, b);
}

constexpr const char* memory_advice =
    "use smaller sizes (micro-batch, window), job.recompute, or more ranks with parallel.shard = \"full\"";

/// Memory is mapped when it is touched: too large a buffer would be granted, and then the kernel would end
/// this process, or another, without a word.
void check_fits(Device device, std::int64_t bytes) {
  constexpr std::int64_t small = std::int64_t{64} << 20;
  if (bytes < small) return;
  const std::int64_t available = available_memory(device);
  if (available < 0 || bytes <= available) return;
  fail("{}: needs {:.1f} GiB, {:.1f} GiB are available; {}", to_string(device), gib(bytes), gib(available),
       memory_advice);
}

/// By all threads: the first to touch a page decides which NUMA node it lies on, and pages spread over the
/// nodes give all their bandwidth.
void zero(std::byte* data, std::int64_t bytes) {
  const std::int64_t pieces = (bytes + huge_page - 1) / huge_page;
#pragma omp parallel for schedule(static) if (pieces > 1)
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const std::int64_t begin = piece * huge_page;
    std::memset(data + begin, 0, static_cast<std::size_t>(std::min(huge_page, bytes - begin)));
  }
}

/// Zeroed memory of the host, or null.
void* allocate_host(std::int64_t bytes) {
  void* data = ::operator new(static_cast<std::size_t>(bytes), alignment_of(bytes), std::nothrow);
  if (!data) return nullptr;
  // Advice: where it is refused, the pages stay small. Before the first touch, which is what maps them.
  if (bytes >= huge_page) madvise(data, static_cast<std::size_t>(bytes), MADV_HUGEPAGE);
  zero(static_cast<std::byte*>(data), bytes);
  return data;
}

}  // namespace

std::int64_t available_host_memory(int processes, const std::function<int(std::uint64_t)>& in_group) {
  const auto machine = proc_bytes("/proc/meminfo", "MemAvailable:");
  std::int64_t available = machine < 0 ? machine : machine / processes;
  for (const auto& limit : cgroup_limits()) {
    if (limit.memory >= 0) available = smaller(available, limit.memory / std::max(1, in_group(limit.group)));
  }
  return smaller(available, available_address_space());
}

std::int64_t available_memory(Device device) {
  return device.kind == DeviceKind::cpu ? available_host_memory(1, [](std::uint64_t) { return 1; })
                                        : cuda::available_memory(device);
}

Buffer::Buffer(Device device, std::int64_t bytes) : device_(device), bytes_(bytes) {
  require(bytes >= 0, "a buffer of {} bytes", bytes);
  if (bytes == 0) return;
  check_fits(device, bytes);
  data_ = device.kind == DeviceKind::cpu ? allocate_host(bytes) : cuda::allocate(device, bytes);
  if (!data_) fail("{}: no memory for {:.1f} GiB; {}", to_string(device), gib(bytes), memory_advice);
}

Buffer::~Buffer() {
  release();
}

Buffer::Buffer(Buffer&& other) noexcept
    : device_(other.device_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    release();
    device_ = other.device_;
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

void Buffer::release() {
  if (data_ && device_.kind == DeviceKind::cpu) ::operator delete(data_, alignment_of(bytes_));
  if (data_ && device_.kind == DeviceKind::cuda) cuda::release(device_, data_);
  data_ = nullptr;
}

Tensor Buffer::as_tensor(DType dtype) const {
  require(bytes_ % size_of(dtype) == 0, "{} bytes are no whole number of {} elements", bytes_,
          to_string(dtype));
  return Tensor(data_, dtype, {bytes_ / size_of(dtype)}, device_);
}

Tensor Arena::allocate(DType dtype, std::initializer_list<std::int64_t> shape) {
  return allocate(dtype, std::span(shape.begin(), shape.size()));
}

Tensor Arena::allocate(DType dtype, std::span<const std::int64_t> shape) {
  const std::int64_t bytes = round_up(Tensor(nullptr, dtype, shape, device_).bytes());
  const std::int64_t offset = cursor_;
  cursor_ += bytes;
  if (!counting_) {
    require(cursor_ <= total_, "an arena planned for {} bytes is asked for {}", total_, cursor_);
    return Tensor(static_cast<std::byte*>(buffer_.data()) + offset, dtype, shape, device_);
  }
  total_ = cursor_;
  Entry* entry = nullptr;
  for (Entry& known : plan_) {
    if (known.category == category_) entry = &known;
  }
  if (!entry) entry = &plan_.emplace_back(Entry{category_, 0});
  entry->bytes += bytes;
  return Tensor(reinterpret_cast<void*>(counting_address + static_cast<std::uintptr_t>(offset)), dtype, shape,
                device_);
}

void Arena::overlay(std::size_t count, const std::function<void(std::size_t)>& f) {
  const std::int64_t begin = cursor_;
  const auto plan = plan_;
  std::int64_t end = begin;
  auto largest = plan_;
  for (std::size_t i = 0; i < count; ++i) {
    cursor_ = begin;
    plan_ = plan;
    f(i);
    if (cursor_ < end) continue;
    end = cursor_;
    largest = plan_;
  }
  cursor_ = end;
  plan_ = largest;
  if (counting_) total_ = end;
}

void Arena::commit() {
  require(counting_, "an arena is committed twice");
  buffer_ = Buffer(device_, total_);
  counting_ = false;
  cursor_ = 0;
}

}  // namespace ratplus
