// Limits of the control groups (cgroups, v1 and v2) that this process runs in: containers, batch systems and systemd
// set them, and /proc/meminfo and the affinity mask say nothing of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace ratplus {

/// A limit of one group; the limits of its group and of all groups above hold for a process.
struct CgroupLimit {
  std::uint64_t group = 0;  ///< the same number in all processes of this host that share the group
  double cores = 0;         ///< CPU quota in cores; 0: none
  /// Bytes that the group may still take, its page cache counted as free; -1: no limit.
  std::int64_t memory = -1;
};

/// All limits, the innermost group first; empty where there are none, or no cgroups. `root` is where proc/ and the
/// mounted groups are looked for: "/", or a test's own directory.
std::vector<CgroupLimit> cgroup_limits(const std::filesystem::path& root = "/");

}  // namespace ratplus
