#include "kernels/machine.h"

#include <omp.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace ratplus {
namespace {

namespace fs = std::filesystem;

/// The number after a key in a file of lines "KEY NUMBER ..." or "KEY: NUMBER kB".
std::optional<std::int64_t> number_after(const fs::path& file, std::string_view key) {
  std::ifstream in(file);
  for (std::string word; in >> word;) {
    std::int64_t number = 0;
    if (word == key && in >> number) return number;
    std::getline(in, word);
  }
  return std::nullopt;
}

/// The number that a file begins with; none where there is no file, or "max" in it.
std::optional<std::int64_t> number_in(const fs::path& file) {
  std::ifstream in(file);
  std::int64_t number = 0;
  if (in >> number) return number;
  return std::nullopt;
}

/// The smaller of two limits, of which a negative one is none.
template <typename T>
void lower(T& limit, T other) {
  if (other >= 0) limit = limit < 0 ? other : std::min(limit, other);
}

void look_at_cpu(const fs::path& group, GroupLimits& limits) {
  std::int64_t quota = 0, period = 0;
  if (std::ifstream in(group / "cpu.max"); in >> quota >> period) {
    if (period > 0) lower(limits.cores, static_cast<double>(quota) / static_cast<double>(period));
    return;
  }
  const auto old_quota = number_in(group / "cpu.cfs_quota_us");
  const auto old_period = number_in(group / "cpu.cfs_period_us");
  if (old_quota && old_period && *old_quota > 0 && *old_period > 0)
    lower(limits.cores, static_cast<double>(*old_quota) / static_cast<double>(*old_period));
}

/// Pages of files that nobody uses go when memory is wanted.
void look_at_memory(const fs::path& group, GroupLimits& limits) {
  const auto look = [&](const char* most, const char* used, const char* reclaimable) {
    const auto limit = number_in(group / most);
    const auto usage = number_in(group / used);
    if (!limit || !usage) return;
    const auto files = number_after(group / "memory.stat", reclaimable).value_or(0);
    lower(limits.memory, std::max<std::int64_t>(*limit - (*usage - files), 0));
  };
  look("memory.max", "memory.current", "inactive_file");
  look("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
}

std::int64_t address_space_left() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return -1;
  const auto used = number_after("/proc/self/status", "VmSize:").value_or(0) << 10;  // in kB
  return std::max<std::int64_t>(static_cast<std::int64_t>(limit.rlim_cur) - used, 0);
}

}  // namespace

GroupLimits group_limits(const fs::path& proc_cgroup, const fs::path& mounts) {
  GroupLimits limits;
  std::ifstream in(proc_cgroup);
  for (std::string line;
       std::getline(in, line);) {  // "NUMBER:CONTROLLERS:/PATH"; version 2 has no controllers
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path mount = controllers.empty() ? mounts : mounts / controllers;
    // The group and those above it; in a container the path may be the host's, and only the mount itself is there.
    for (fs::path path = line.substr(second + 1);; path = path.parent_path()) {
      const auto group = mount / path.relative_path();
      look_at_cpu(group, limits);
      look_at_memory(group, limits);
      if (!path.has_relative_path()) break;
    }
  }
  return limits;
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int bound = sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
  const double quota = group_limits().cores;
  if (quota < 0) return bound;
  return std::clamp(static_cast<int>(std::lround(quota)), 1, bound);
}

std::int64_t available_host_memory() {
  std::int64_t available = -1;
  if (const auto machine = number_after("/proc/meminfo", "MemAvailable:"))
    available = *machine << 10;  // in kB
  lower(available, group_limits().memory);
  lower(available, address_space_left());
  return available;
}

int obtainable_threads(int wanted) {
  omp_set_dynamic(0);
  if (omp_get_max_active_levels() < 1) omp_set_max_active_levels(1);
  int given = 1;
#pragma omp parallel num_threads(wanted)
#pragma omp single
  given = omp_get_num_threads();
  return given;
}

}  // namespace ratplus
