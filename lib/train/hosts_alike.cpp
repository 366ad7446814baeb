#include "lib/train/hosts_alike.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <random>
#include <string>
#include <system_error>

#include "base/error.h"
#include "base/files/appears.h"
#include "base/files/pending_file.h"

namespace ratplus::train {
namespace {

namespace fs = std::filesystem;

void require_shared(const std::string& directory, const char* key, const parallel::World& world) {
  const fs::path path = fs::absolute(directory);
  const auto file = path / world.from_root([&] {
    const auto name = fmt::format(".seen-by-all-hosts-{:08x}", std::random_device()());
    write_whole_file(path / name, "removed again when all hosts have seen it\n");
    return name;
  });
  const auto root_host = world.broadcast(world.host());
  const auto remove = [&] {
    std::error_code ignored;
    if (world.root()) fs::remove(file, ignored);
  };
  try {
    world.agree([&] {
      if (appears(file)) return;
      fail(
          "{} is not the directory that rank 0 on {} writes to, and every rank writes a part of each "
          "checkpoint "
          "there; set {} to a directory on a file system that all hosts share",
          path.string(), root_host, key);
    });
  } catch (...) {
    remove();
    throw;
  }
  remove();
}

}  // namespace

void require_same_job(const config::JobConfig& job, const parallel::World& world) {
  if (world.size() == 1) return;
  const auto first_text = world.broadcast(config::to_toml(job));
  const auto first_host = world.broadcast(world.host());
  world.agree([&] {
    const auto first = config::parse_job(first_text, job.source);
    if (first == job) return;
    fail(
        "{}: differs from the job file of rank 0 on {} (its values follow \"was\"):\n  {}\ngive all hosts "
        "the same file",
        job.source, first_host, fmt::join(config::differences(first, job), "\n  "));
  });
}

void require_shared_directories(const config::JobConfig& job, const parallel::World& world) {
  if (world.local_size() == world.size()) return;
  require_shared(job.job.directory, "job.directory", world);
  if (!job.checkpoint.directory.empty())
    require_shared(job.checkpoint.directory, "checkpoint.directory", world);
}

}  // namespace ratplus::train
