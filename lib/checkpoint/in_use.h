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

/// Removes a checkpoint, unless somebody reads it or it cannot be removed. The manifest goes first: what is left of an
/// interrupted removal is no checkpoint. Of a link, what it leads to stays.
void remove_unused(const std::filesystem::path& directory);

}  // namespace ratplus::checkpoint
