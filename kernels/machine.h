// What this process may use of its machine: cores and memory, with the limits of control groups and of the shell.
#pragma once

#include <cstdint>
#include <filesystem>

namespace ratplus {

/// Cores that this process may run on (sched_getaffinity, which mpirun, srun and taskset set), or those that its control
/// groups' CPU quota amounts to, rounded, where these are fewer; at least 1.
int usable_cores();

/// Bytes that this process could still take without swapping: the machine's (MemAvailable), less where a control group
/// (memory.max, memory.limit_in_bytes) or an address-space limit (ulimit -v) leaves less. -1 where nothing tells.
std::int64_t available_host_memory();

/// Of `wanted` threads those that OpenMP gives, which may be fewer (OMP_THREAD_LIMIT, OMP_DYNAMIC, a limit on active
/// levels); a library that waits for the others would wait for ever. Makes OpenMP give the same number from here on.
int obtainable_threads(int wanted);

/// The limits of this process's control groups, of version 1 and 2, it and those above it; for tests, where
/// `proc_cgroup` stands for /proc/self/cgroup and `mounts` for /sys/fs/cgroup.
struct GroupLimits {
  double cores = -1;         ///< CPU quota over period; -1: none
  std::int64_t memory = -1;  ///< bytes that are left; -1: no limit
};
GroupLimits group_limits(const std::filesystem::path& proc_cgroup = "/proc/self/cgroup",
                         const std::filesystem::path& mounts = "/sys/fs/cgroup");

}  // namespace ratplus
