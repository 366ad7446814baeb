// Rates of files: a checkpoint directory's, written and read back, and those of data that are there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace ratplus::check {

/// Bytes a second.
struct DiskRates {
  double write = 0;  ///< the sync to the disk included
  double read = 0;   ///< after the system was asked to drop the file from its page cache
};

/// Limits of a measurement: it ends with the first that it reaches.
struct Amount {
  double seconds = 2;
  std::int64_t bytes = std::int64_t{1} << 30;
};

/// Writes a file without a name in `directory`, syncs it, and reads it back. Nothing is left there, however this process
/// ends. Throws Error where it cannot be written.
DiskRates measure_disk(const std::filesystem::path& directory, Amount amount);

/// Reads files one after another, from the one at `place` (0 to 1) of all bytes on; what is read is dropped from the page
/// cache before. Bytes a second; 0 where fewer than 4 MiB are there, whose rate means nothing. Throws Error where a file
/// cannot be read.
double measure_reading(const std::vector<std::filesystem::path>& files, double place, Amount amount);

/// The directory itself, or the nearest one above it that is there.
std::filesystem::path nearest_directory(std::filesystem::path directory);

/// Bytes that this user may still write in a directory; -1 where it is not known.
std::int64_t free_space(const std::filesystem::path& directory);

}  // namespace ratplus::check
