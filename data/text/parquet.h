// Parquet: the texts of one column, by Apache Arrow where the program was built with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace ratplus::data::parquet {

/// Packed bytes of each row group, the unit that can be read alone. Throws Error naming the file if it is no sound
/// Parquet file, or if this program was built without Arrow (then with how to build it with).
std::vector<std::int64_t> row_group_bytes(const std::filesystem::path& file);

/// The texts of row groups [begin, end), one after another; no more than a page is in memory.
class Texts {
 public:
  /// Throws Error naming the file, and its columns if it has none of this name that holds text.
  Texts(const std::filesystem::path& file, const std::string& column, std::int64_t begin, std::int64_t end);
  ~Texts();
  Texts(const Texts&) = delete;
  Texts& operator=(const Texts&) = delete;

  /// The next row's text; a null is an empty text. False at the end.
  bool next(std::string& text);
  /// Row within the file, from 0, of the last text.
  std::int64_t row() const;
  /// Row groups that are read to their end.
  std::int64_t row_groups_done() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::data::parquet
