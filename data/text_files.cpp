// The files behind the inputs of `prepare`.
#include <glob.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <system_error>

#include "data/text_source.h"
#include "kernels/error.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* known_names = ".txt, .jsonl (both also with .gz or .zst) or .parquet";

/// Kind and packing by the name; none for a name of another kind.
std::optional<TextFile> file_of_name(const fs::path& path) {
  TextFile file{.path = path};
  fs::path name = path.filename();
  if (name.extension() == ".gz") file.packing = Packing::gzip;
  if (name.extension() == ".zst") file.packing = Packing::zstd;
  if (file.packing != Packing::none) name = name.stem();
  if (name.extension() == ".txt") {
    file.kind = TextFile::Kind::text;
  } else if (name.extension() == ".jsonl") {
    file.kind = TextFile::Kind::json_lines;
  } else if (name.extension() == ".parquet" && file.packing == Packing::none) {
    file.kind = TextFile::Kind::parquet;
  } else {
    return std::nullopt;
  }
  return file;
}

void append_directory(const fs::path& directory, std::vector<TextFile>& files) {
  std::vector<TextFile> found;
  std::error_code error;
  for (fs::recursive_directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    auto file = file_of_name(at->path());
    if (!file || !at->is_regular_file()) continue;
    file->bytes = static_cast<std::int64_t>(at->file_size());
    found.push_back(std::move(*file));
  }
  if (error) fail("cannot list {}: {}", directory.string(), error.message());
  if (found.empty()) fail("{} holds no {} file", directory.string(), known_names);
  std::sort(found.begin(), found.end(), [](const TextFile& a, const TextFile& b) { return a.path < b.path; });
  files.insert(files.end(), found.begin(), found.end());
}

void append_input(const fs::path& input, std::vector<TextFile>& files) {
  std::error_code error;
  const fs::file_status status = fs::status(input, error);
  if (status.type() == fs::file_type::not_found) fail("input {} does not exist", input.string());
  if (status.type() == fs::file_type::none) fail("input {}: {}", input.string(), error.message());
  if (fs::is_directory(status)) {
    append_directory(input, files);
    return;
  }
  auto file = file_of_name(input);
  if (!file || !fs::is_regular_file(status)) {
    fail("input {} is neither a directory nor a {} file; unpack, convert or rename it", input.string(),
         known_names);
  }
  file->bytes = static_cast<std::int64_t>(fs::file_size(input));
  files.push_back(std::move(*file));
}

bool is_pattern(const fs::path& input) {
  std::error_code ignored;
  return input.string().find_first_of("*?[") != std::string::npos && !fs::exists(input, ignored);
}

/// The paths that match, sorted.
std::vector<fs::path> match(const fs::path& pattern) {
  glob_t found{};
  const int status = ::glob(pattern.c_str(), GLOB_ERR, nullptr, &found);
  std::vector<fs::path> paths;
  for (std::size_t i = 0; i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  ::globfree(&found);
  if (status == GLOB_NOMATCH) fail("input {} matches nothing", pattern.string());
  if (status != 0) fail("input {}: a directory on the way cannot be listed", pattern.string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

std::vector<TextFile> list_text_files(const std::vector<fs::path>& inputs) {
  std::vector<TextFile> files;
  for (const fs::path& input : inputs) {
    if (!is_pattern(input)) {
      append_input(input, files);
      continue;
    }
    for (const fs::path& path : match(input)) append_input(path, files);
  }
  if (files.empty()) fail("no input; name {} files, or directories or patterns of them", known_names);
  return files;
}

}  // namespace ratplus::data
