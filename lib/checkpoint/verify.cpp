#include "lib/checkpoint/verify.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/units.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/in_use.h"
#include "lib/model/parameters.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;

}  // namespace

void verify_part(const Info& info, int part, const VerifyProgress& progress) {
  const InUse in_use(info.directory);
  check_present(info, part);
  const auto file = info.directory / file_name(part);
  if (info.files.empty()) {
    read_datasets(info.directory, info, part, model::unit_layouts(info.model), progress);
    return;
  }
  const auto& listed = info.files[static_cast<std::size_t>(part)];
  const auto found = measure(file, progress);
  if (found == listed) return;
  fail("{}: damaged: its checksum is {:08x} instead of {:08x}; copy it again, or use another checkpoint",
       file.string(), found.crc32, listed.crc32);
}

void verify(const Info& info, const VerifyProgress& progress) {
  for (int part = 0; part < info.parts; ++part) verify_part(info, part, progress);
}

void verify_share(const Info& info, const parallel::World& world, const VerifyProgress& progress) {
  for (int part = world.rank(); part < info.parts; part += world.size()) verify_part(info, part, progress);
}

std::int64_t bytes_of(const Info& info) {
  std::int64_t bytes = 0;
  for (int part = 0; part < info.parts; ++part) {
    check_present(info, part);
    bytes += static_cast<std::int64_t>(fs::file_size(info.directory / file_name(part)));
  }
  return bytes;
}

Found newest_whole(const fs::path& run, const parallel::World& world, const VerifyProgress& progress) {
  std::vector<fs::path> candidates;
  const auto names = world.from_root([&] {
    candidates = list(run);
    return std::to_string(candidates.size());
  });
  Found found;
  for (auto left = std::stoul(names); left-- > 0;) {
    const fs::path candidate = world.from_root([&] { return candidates[left].string(); });
    try {
      world.agree([&] { verify_share(read_info(candidate), world, progress); });
      found.newest = candidate;
      return found;
    } catch (const parallel::AgreedError& error) {
      found.damaged.push_back({candidate, error.what()});
    }
  }
  if (found.damaged.empty()) return found;
  throw parallel::AgreedError(
      fmt::format("{}: none of its {} is whole; the newest: {}\nRemove or move what is there to begin anew",
                  run.string(), counted(found.damaged.size(), "checkpoint"), found.damaged.front().reason));
}

void set_aside(const fs::path& directory) {
  fs::path aside = directory;
  aside += ".damaged";
  std::error_code reason;
  fs::remove_all(aside, reason);
  fs::rename(directory, aside, reason);
  if (reason) fail("{}: cannot be renamed to {}: {}", directory.string(), aside.string(), reason.message());
}

}  // namespace ratplus::checkpoint
