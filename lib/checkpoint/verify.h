// Whether a checkpoint is whole: every byte of every file against the manifest's checksums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/checkpoint/manifest.h"
#include "parallel/world.h"

namespace ratplus::checkpoint {

/// Bytes read since the last call.
using VerifyProgress = std::function<void(std::int64_t)>;

/// Reads a part's file. Throws Error naming it where it is missing, of another size, or not the bytes that were
/// written. Of version 1, which has no checksums of files, every dataset is read by its own.
void verify_part(const Info& info, int part, const VerifyProgress& progress = {});
/// All parts.
void verify(const Info& info, const VerifyProgress& progress = {});
/// This rank's share of the parts: all ranks' are all. Talks to no other rank.
void verify_share(const Info& info, const parallel::World& world, const VerifyProgress& progress = {});
/// Bytes of all parts, as they are on the disk.
std::int64_t bytes_of(const Info& info);

/// A checkpoint that is not whole, and what is wrong with it.
struct Damaged {
  std::filesystem::path directory;
  std::string reason;
};
struct Found {
  std::optional<std::filesystem::path> newest;  ///< that is whole
  std::vector<Damaged> damaged;                 ///< newer ones, newest first
};
/// The newest whole checkpoint of a run, by all ranks together: each verifies some of the parts. `progress` gets
/// of those of this rank. Throws Error, on all ranks alike, where there are checkpoints and none is whole.
Found newest_whole(const std::filesystem::path& run, const parallel::World& world,
                   const VerifyProgress& progress = {});
/// Renames a damaged checkpoint to "NAME.damaged", so that nothing takes it for a whole one.
void set_aside(const std::filesystem::path& directory);

}  // namespace ratplus::checkpoint
