#include "base/cgroup.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <string_view>

namespace ratplus {
namespace {

namespace fs = std::filesystem;

/// A hierarchy of groups as it is mounted; v1 has one for each controller or pair of them, v2 one for all.
struct Mount {
  fs::path root;   ///< the group that is mounted: another than "/" in some containers
  fs::path point;  ///< where
  bool v2 = false;
  std::string options;  ///< v1: its controllers among others, "rw,cpu,cpuacct"
};

/// Whether "a,b,c" has this word.
bool has_word(const std::string& list, std::string_view word) {
  std::istringstream words(list);
  for (std::string each; std::getline(words, each, ',');) {
    if (each == word) return true;
  }
  return false;
}

/// Of /proc/self/mountinfo, which writes blanks in paths as \040.
std::string without_escapes(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool octal = text[i] == '\\' && i + 3 < text.size() &&
                       std::all_of(text.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                   text.begin() + static_cast<std::ptrdiff_t>(i) + 4,
                                   [](char c) { return c >= '0' && c <= '7'; });
    if (!octal) {
      plain += text[i];
      continue;
    }
    plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
    i += 3;
  }
  return plain;
}

std::vector<Mount> read_mounts(const fs::path& root) {
  std::vector<Mount> mounts;
  std::ifstream in(root / "proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    // 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
    const auto dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash)), after(line.substr(dash + 3));
    std::string id, parent, device, mounted, point, type, source, options;
    before >> id >> parent >> device >> mounted >> point;
    after >> type >> source >> options;
    if (type != "cgroup" && type != "cgroup2") continue;
    mounts.push_back({without_escapes(mounted), root / fs::path(without_escapes(point)).relative_path(),
                      type == "cgroup2", options});
  }
  return mounts;
}

/// The group's directories below a mount, this process's own first, the mounted one last.
std::vector<fs::path> directories_of(const Mount& mount, const fs::path& group) {
  fs::path below = group.lexically_relative(mount.root);
  // A group outside of what is mounted: a container shows its own group as the root.
  if (below.empty() || below.begin()->string() == "..") below = ".";
  std::vector<fs::path> directories;
  for (fs::path each = below.lexically_normal(); !each.empty() && each != "."; each = each.parent_path())
    directories.push_back(mount.point / each);
  directories.push_back(mount.point);
  return directories;
}

/// A number that says which group a directory stands for, to all processes of the host.
std::uint64_t number_of(const fs::path& directory) {
  struct stat status {};
  if (::stat(directory.c_str(), &status) != 0) return 0;
  return static_cast<std::uint64_t>(status.st_dev) << 40U ^ static_cast<std::uint64_t>(status.st_ino);
}

/// The first number in a file, or -1 where there is none ("max") or no file.
std::int64_t number_in(const fs::path& file) {
  std::ifstream in(file);
  std::int64_t value = -1;
  return in >> value ? value : -1;
}

/// The value after a key in the lines of memory.stat; 0 if it is not there.
std::int64_t stat_value(const fs::path& directory, std::string_view wanted) {
  std::ifstream in(directory / "memory.stat");
  std::string key;
  for (std::int64_t value = 0; in >> key >> value;) {
    if (key == wanted) return std::max<std::int64_t>(value, 0);
  }
  return 0;
}

double cores_of(const fs::path& directory, bool v2) {
  double quota = -1, period = 0;
  if (v2) {
    std::ifstream in(directory / "cpu.max");  // "200000 100000", or "max 100000"
    if (!(in >> quota >> period)) return 0;
  } else {
    quota = static_cast<double>(number_in(directory / "cpu.cfs_quota_us"));
    period = static_cast<double>(number_in(directory / "cpu.cfs_period_us"));
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

std::int64_t memory_of(const fs::path& directory, bool v2) {
  std::int64_t limit = number_in(directory / (v2 ? "memory.max" : "memory.limit_in_bytes"));
  if (v2) {  // above memory.high a group is slowed down to a crawl
    const auto high = number_in(directory / "memory.high");
    if (high >= 0) limit = limit < 0 ? high : std::min(limit, high);
  }
  constexpr std::int64_t unlimited =
      std::numeric_limits<std::int64_t>::max() / 2;  // v1 writes 2^63 less a page
  if (limit < 0 || limit >= unlimited) return -1;
  const auto used = number_in(directory / (v2 ? "memory.current" : "memory.usage_in_bytes"));
  const char* kinds[] = {v2 ? "inactive_file" : "total_inactive_file",
                         v2 ? "active_file" : "total_active_file"};
  std::int64_t cache = 0;
  for (const char* kind : kinds) cache += stat_value(directory, kind);
  return std::clamp<std::int64_t>(limit - std::max<std::int64_t>(used, 0) + cache, 0, limit);
}

}  // namespace

std::vector<CgroupLimit> cgroup_limits(const fs::path& root) {
  std::vector<CgroupLimit> limits;
  const auto mounts = read_mounts(root);
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    // 4:memory:/job/step in v1, 0::/job/step in v2
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    const bool v2 = controllers.empty();
    const bool cpu = v2 || has_word(controllers, "cpu"), memory = v2 || has_word(controllers, "memory");
    if (!cpu && !memory) continue;
    const auto mount = std::ranges::find_if(mounts, [&](const Mount& each) {
      return each.v2 == v2 && (v2 || has_word(each.options, cpu ? "cpu" : "memory"));
    });
    if (mount == mounts.end()) continue;
    for (const auto& directory : directories_of(*mount, group)) {
      const CgroupLimit limit{.group = number_of(directory),
                              .cores = cpu ? cores_of(directory, v2) : 0,
                              .memory = memory ? memory_of(directory, v2) : -1};
      if (limit.cores > 0 || limit.memory >= 0) limits.push_back(limit);
    }
  }
  return limits;
}

}  // namespace ratplus
