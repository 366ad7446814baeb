// Limits of control groups, as files of a made-up /proc and /sys.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "base/cgroup.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

constexpr std::int64_t mib = std::int64_t{1} << 20;

}  // namespace

TEST_CASE("cgroups v2: memory.max less what is used, cpu.max, of every group above") {
  const test::ScratchDirectory scratch;
  const fs::path root = scratch / "";
  write(root / "proc/self/cgroup", "0::/job/step\n");
  write(root / "proc/self/mountinfo",
        "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  const auto job = root / "sys/fs/cgroup/job", step = job / "step";
  write(step / "cpu.max", "150000 100000\n");
  write(step / "memory.max", "max\n");
  write(job / "cpu.max", "max 100000\n");
  write(job / "memory.max", std::to_string(100 * mib) + "\n");
  write(job / "memory.high", "max\n");
  write(job / "memory.current", std::to_string(70 * mib) + "\n");
  write(job / "memory.stat", "anon 1\ninactive_file 10485760\nactive_file 5242880\n");
  const auto limits = cgroup_limits(root);
  REQUIRE(limits.size() == 2);
  CHECK(limits[0].cores == 1.5);
  CHECK(limits[0].memory == -1);
  CHECK(limits[1].cores == 0);
  CHECK(limits[1].memory == 45 * mib);
  CHECK(limits[0].group != limits[1].group);
  CHECK(cgroup_limits(root)[1].group == limits[1].group);
}

TEST_CASE(
    "cgroups v1: a hierarchy for each controller, and a container that sees its own group as the root") {
  const test::ScratchDirectory scratch;
  const fs::path root = scratch / "";
  write(root / "proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/job\n");
  write(root / "proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 31 0:29 / /sys/fs/cgroup/my\\040cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
  const auto memory = root / "sys/fs/cgroup/memory", cpu = root / "sys/fs/cgroup/my cpu";
  write(memory / "memory.limit_in_bytes", std::to_string(64 * mib) + "\n");
  write(memory / "memory.usage_in_bytes", std::to_string(80 * mib) + "\n");  // lowered after it was used
  write(cpu / "cpu.cfs_quota_us", "-1\n");
  write(cpu / "cpu.cfs_period_us", "100000\n");
  write(cpu / "job/cpu.cfs_quota_us", "50000\n");
  write(cpu / "job/cpu.cfs_period_us", "100000\n");
  auto limits = cgroup_limits(root);
  REQUIRE(limits.size() == 2);
  CHECK(limits[0].memory == 0);
  CHECK(limits[1].cores == 0.5);
  write(memory / "memory.limit_in_bytes", "9223372036854771712\n");  // without a limit
  limits = cgroup_limits(root);
  REQUIRE(limits.size() == 1);
  CHECK(limits[0].cores == 0.5);
}

TEST_CASE("without cgroups there are no limits") {
  const test::ScratchDirectory scratch;
  CHECK(cgroup_limits(scratch / "").empty());
}
