// Units: what `prepare` tokenizes as a whole, and does not do again once it is done.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/text/text_source.h"

namespace ratplus::data {

struct TextUnit {
  std::vector<TextPart> parts;
  std::int64_t bytes = 0;  ///< on disk
  std::string source;      ///< digest of the settings, and of the parts' paths, sizes and times of change
  std::vector<std::string> marks;  ///< file_mark of each part's file
};

/// The inputs in order, cut into units of about `unit_bytes`: small files together, plain JSON lines and Parquet files in
/// parts, other files as wholes. Depends on the files alone. `settings` goes into each unit's digest. The units point
/// into `files`.
std::vector<TextUnit> cut_into_units(const std::vector<TextFile>& files, std::int64_t unit_bytes,
                                     const std::string& settings);

/// Throws Error naming a file of the unit that was changed since the unit was cut: what was read of it may be of two
/// versions.
void check_unchanged(const TextUnit& unit);

/// Between 4 MB and 256 MB, so that there are some 64 units to share out.
std::int64_t unit_bytes_for(const std::vector<TextFile>& files);

/// Path, size and time of change of a file: what tells whether it is the same.
std::string file_mark(const TextFile& file);

}  // namespace ratplus::data
