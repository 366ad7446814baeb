#include "lib/checkpoint/in_use.h"

#include <fcntl.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/files/whole_path.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/manifest.h"

namespace ratplus::checkpoint {

namespace fs = std::filesystem;

InUse::InUse(const fs::path& directory) : manifest_(directory / manifest_name, O_RDONLY) {
  const bool gone = !manifest_.ok() && (errno == ENOENT || errno == ESTALE);
  const bool going = manifest_.ok() && try_lock(manifest_.get(), Lock::shared) == Locked::held_elsewhere;
  // The lock was had too late where the manifest has lost its name meanwhile.
  const bool went = manifest_.ok() && !has_name(manifest_, directory / manifest_name);
  // Without locks (Lustre, NFS) readers ask was_removed when a file is missing.
  if (gone || going || went) fail_removed(directory);
}

bool was_removed(const fs::path& directory) {
  std::error_code reason;
  return !fs::exists(directory / manifest_name, reason) &&
         (!reason || reason == std::errc::no_such_file_or_directory || reason.value() == ESTALE);
}

void fail_removed(const fs::path& directory) {
  const auto itself = whole_path(directory);
  std::string newer;
  try {
    const auto all = list(itself.parent_path().parent_path());
    // Names of steps sort as their numbers, longer ones behind.
    const auto key = [](const fs::path& path) {
      const auto name = path.filename().string();
      return std::pair(name.size(), name);
    };
    for (const auto& each : all) {
      if (key(each) > key(itself)) newer += (newer.empty() ? "" : ", ") + each.filename().string();
    }
  } catch (const Error&) {
    // The run's directory is gone too.
  }
  fail(
      "{}: was removed while it was read: its run keeps the newest checkpoints alone (checkpoint.keep, "
      "checkpoint.keep_every); {}",
      directory.string(),
      newer.empty() ? "the run has no newer one" : fmt::format("take a newer one: {}", newer));
}

void remove_unused(const fs::path& directory) {
  std::error_code ignored;
  if (fs::is_symlink(directory, ignored)) {
    fs::remove(directory, ignored);
    return;
  }
  Descriptor manifest(directory / manifest_name,
                      O_RDWR);  // NFS locks alone only what may be written
  if (manifest.ok() && try_lock(manifest.get(), Lock::exclusive) == Locked::held_elsewhere) return;
  fs::remove(directory / manifest_name, ignored);
  manifest.close();  // NFS keeps an open file in its directory, under another name
  fs::remove_all(directory, ignored);
}

}  // namespace ratplus::checkpoint
