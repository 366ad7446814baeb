#include "lib/checkpoint/in_use.h"

#include <fcntl.h>

#include <cerrno>
#include <system_error>

#include "base/error.h"
#include "lib/checkpoint/manifest.h"

namespace ratplus::checkpoint {

namespace fs = std::filesystem;

InUse::InUse(const fs::path& directory) : manifest_(directory / manifest_name, O_RDONLY) {
  const bool gone = !manifest_.ok() && errno == ENOENT;
  const bool going = manifest_.ok() && try_lock(manifest_.get(), Lock::shared) == Locked::held_elsewhere;
  if (!gone && !going)
    return;  // without locks (Lustre, NFS) a pruned checkpoint is noticed by its missing files
  fail(
      "{}: was removed while it was to be read: its run keeps the newest checkpoints alone (checkpoint.keep, "
      "checkpoint.keep_every); take a newer one",
      directory.string());
}

void remove_unused(const fs::path& directory) {
  std::error_code ignored;
  if (fs::is_symlink(directory, ignored)) {
    fs::remove(directory, ignored);
    return;
  }
  const Descriptor manifest(directory / manifest_name,
                            O_RDWR);  // NFS locks alone only what may be written
  if (manifest.ok() && try_lock(manifest.get(), Lock::exclusive) == Locked::held_elsewhere) return;
  fs::remove(directory / manifest_name, ignored);
  fs::remove_all(directory, ignored);
}

}  // namespace ratplus::checkpoint
