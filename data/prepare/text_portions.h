// Portions of the input: `prepare` tokenizes each as a whole, and keeps the finished ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/text/text_source.h"

namespace ratplus::data {

struct TextPortion {
  std::vector<TextPart> parts;
  std::int64_t bytes = 0;  ///< on disk
  std::string source;      ///< digest of the settings, and of the parts' paths, sizes and times of change
  std::vector<std::string> marks;  ///< file_mark of each part's file
};

/// The inputs in order, cut into portions of about `portion_bytes`: small files together, plain JSON lines and Parquet files in
/// parts, other files as wholes. Depends on the files alone. `settings` goes into each portion's digest. The portions point
/// into `files`.
std::vector<TextPortion> cut_into_portions(const std::vector<TextFile>& files, std::int64_t portion_bytes,
                                           const std::string& settings);

/// Throws Error naming a file of the portion that was changed since the portion was cut: what was read of it may be of two
/// versions.
void check_unchanged(const TextPortion& portion);

/// Between 4 MB and 256 MB, so that there are some 64 portions to share out.
std::int64_t portion_bytes_for(const std::vector<TextFile>& files);

/// Path, size and time of change of a file: equal for an unchanged file.
std::string file_mark(const TextFile& file);

}  // namespace ratplus::data
