// What a host says of itself: limits, memory, counters of errors, versions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace ratplus::check {

/// Bytes of memory that this process may lock; infinity for no limit.
double locked_memory_limit();

/// Errors of memory that were counted since the driver, or the host, started.
struct MemoryErrors {
  std::optional<double> corrected;
  std::optional<double> uncorrected;
};
/// Of the host's memory, all controllers together, as Linux counts them; none where it does not. `root`: "/", or a test's
/// directory.
MemoryErrors host_memory_errors(const std::filesystem::path& root = "/");

/// What nvidia-smi says of one GPU.
struct GpuFacts {
  std::string driver;
  MemoryErrors errors;
};
/// The output of nvidia-smi for all GPUs of this host; empty where it is not there, or does not answer within 20 s.
std::string ask_nvidia_smi();
/// The line of the GPU with this id (cuda_device_id: 32 hexadecimal digits); none where it has none.
std::optional<GpuFacts> parse_nvidia_smi(std::string_view output, std::string_view id);

/// Xid errors in the kernel's messages (/dev/kmsg); none where these may not be read.
std::optional<double> count_xid_errors(const std::filesystem::path& messages = "/dev/kmsg");

}  // namespace ratplus::check
