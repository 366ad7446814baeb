// InUse: a checkpoint that is being read is not pruned under its reader.
#pragma once

#include <filesystem>

#include "base/files/descriptor.h"

namespace ratplus::checkpoint {

/// While one lives, remove_unused leaves this checkpoint, in whatever process that runs, as far as the file system has
/// locks.
class InUse {
 public:
  /// Throws Error saying so where the checkpoint is gone, or going.
  explicit InUse(const std::filesystem::path& directory);

 private:
  Descriptor manifest_;  ///< the lock is on it, and goes with it
};

/// Whether a checkpoint that was read has been removed since: its manifest goes first.
bool was_removed(const std::filesystem::path& directory);
/// Throws Error saying that the checkpoint was removed while it was read, and which newer ones its run has.
[[noreturn]] void fail_removed(const std::filesystem::path& directory);

/// Removes a checkpoint, unless somebody reads it or it cannot be removed. The manifest goes first: what is left of an
/// interrupted removal is no checkpoint. Of a link, what it leads to stays.
void remove_unused(const std::filesystem::path& directory);

}  // namespace ratplus::checkpoint
