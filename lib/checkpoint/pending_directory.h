// PendingDirectory: a directory written beside its final name and renamed when it is complete.
#pragma once

#include <filesystem>
#include <system_error>

namespace ratplus::checkpoint {

/// Owns `NAME.partial` beside NAME. commit() makes its names durable and gives it its name, in the place of a
/// directory that had it; destroyed before that, it is removed with all that is in it.
class PendingDirectory {
 public:
  /// Makes it, empty. Throws Error naming the directory as it is to be called.
  explicit PendingDirectory(std::filesystem::path final_name);
  ~PendingDirectory();
  PendingDirectory(const PendingDirectory&) = delete;
  PendingDirectory& operator=(const PendingDirectory&) = delete;

  /// Where to write.
  const std::filesystem::path& path() const { return partial_; }
  void commit();

  /// NAME.partial.
  static std::filesystem::path partial_of(std::filesystem::path final_name);
  /// Makes `partial` an empty directory, whatever was there, and those above it. Throws Error naming `final_name`.
  static void make_empty(const std::filesystem::path& partial, const std::filesystem::path& final_name);

 private:
  std::filesystem::path final_;
  std::filesystem::path partial_;  ///< empty once committed
};

/// Gives a complete directory the name of another, or of none: there is one or the other at every moment where the file
/// system can exchange two names, and else the old one is put back if the new one cannot take its place. What was
/// replaced is removed. Throws Error naming `final_name`.
void put_in_place(const std::filesystem::path& complete, const std::filesystem::path& final_name);

}  // namespace ratplus::checkpoint
