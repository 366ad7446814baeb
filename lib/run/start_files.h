// The files in a run's starts/: of each start its record, and how it ended.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

namespace ratplus::run {

/// run/starts/start-0003.json for the third start: the number after the largest that is there.
std::filesystem::path next_start_file(const std::filesystem::path& run);
/// The record with the largest number; none where there is no record.
std::optional<std::filesystem::path> newest_start_file(const std::filesystem::path& run);
/// All records, the largest number first.
std::vector<std::filesystem::path> start_files(const std::filesystem::path& run);
/// end-0003.json beside start-0003.json.
std::filesystem::path end_file(const std::filesystem::path& start_file);

}  // namespace ratplus::run
