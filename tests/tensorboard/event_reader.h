// Reads event files, by the formats' descriptions and with no code of lib/tensorboard. Throws std::runtime_error for
// whatever is not as described: a length, a checksum, a field's type, bytes that are left over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ratplus::test {

struct ReadScalar {
  std::string tag;
  float value = 0;
};

struct ReadEvent {
  double wall_time = 0;
  std::int64_t step = 0;
  std::string file_version;
  int session_status = 0;  ///< 1: START
  std::vector<ReadScalar> scalars;
};

std::vector<ReadEvent> read_events(const std::filesystem::path& file);
/// Those of all event files of a directory, in the order of their names.
std::vector<std::filesystem::path> event_files(const std::filesystem::path& directory);

}  // namespace ratplus::test
