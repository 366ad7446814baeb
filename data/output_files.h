// OutputFiles: what a command writes into a directory, removed again unless all of it is written.
#pragma once

#include <filesystem>
#include <vector>

namespace ratplus::data {

class OutputFiles {
 public:
  OutputFiles() = default;
  ~OutputFiles();
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;

  const std::filesystem::path& add(std::filesystem::path file);
  /// With the directories above it; those that are missing are this command's. Throws Error naming it.
  void make_directory(const std::filesystem::path& directory);
  void keep();

 private:
  std::vector<std::filesystem::path> files_;
  std::vector<std::filesystem::path> directories_;  ///< the innermost first
};

/// Removes a dataset's manifest, by which it ceases to be one, and its shards; nothing where there is none.
void remove_dataset(const std::filesystem::path& directory);

}  // namespace ratplus::data
