// NewDirectories: directories made on the way to a path, and removed again unless they are kept.
#pragma once

#include <filesystem>
#include <vector>

namespace ratplus {

class NewDirectories {
 public:
  /// Makes `path` and the directories above it that are missing. Throws Error naming `path`, and `key` where the path
  /// is a setting's value, once the directories made so far are removed.
  explicit NewDirectories(const std::filesystem::path& path, const char* key = nullptr);
  /// Removes the directories that were made here and are still empty.
  ~NewDirectories() { undo(); }
  NewDirectories(const NewDirectories&) = delete;
  NewDirectories& operator=(const NewDirectories&) = delete;

  void keep() { made_.clear(); }

 private:
  void undo() noexcept;

  std::vector<std::filesystem::path> made_;  ///< the innermost first
};

}  // namespace ratplus
