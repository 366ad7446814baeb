// The files behind the inputs of `prepare`.
#include <fmt/core.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "data/text/text_source.h"

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

std::string broken_link(const fs::path& link) {
  std::error_code ignored;
  return fmt::format("{} is a link to {}, which does not exist; restore that or remove the link",
                     link.string(), fs::read_symlink(link, ignored).string());
}

/// The files as they are found, each once, and notes on the others.
class Listing {
 public:
  void append(const fs::path& input) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (status.type() == fs::file_type::not_found) {
      if (is_link(input)) fail("input {}", broken_link(input));
      fail("input {} does not exist", input.string());
    }
    if (status.type() == fs::file_type::none) fail("input {}: {}", input.string(), error.message());
    if (fs::is_directory(status)) {
      append_directory(input);
      return;
    }
    auto file = file_of_name(input);
    if (!file || !fs::is_regular_file(status)) {
      fail("input {} is neither a directory nor a {} file; unpack, convert or rename it", input.string(),
           known_names);
    }
    append_once(std::move(*file));
  }

  std::vector<TextFile> take_files() { return std::move(files_); }

  std::vector<std::string> notes() const {
    std::vector<std::string> lines;
    if (hidden_ > 0) {
      lines.push_back(fmt::format("passed over: {} (a name that begins with a dot); the first is {}",
                                  counted(hidden_, "hidden file or directory", "hidden files or directories"),
                                  first_hidden_.string()));
    }
    if (again_ > 0) {
      lines.push_back(fmt::format("taken once: {} named or reached again; the first is {}",
                                  counted(again_, "file or directory", "files or directories"),
                                  first_again_.string()));
    }
    return lines;
  }

 private:
  using Identity = std::pair<dev_t, ino_t>;

  static bool is_link(const fs::path& path) {
    std::error_code ignored;
    return fs::is_symlink(fs::symlink_status(path, ignored));
  }

  /// Device and inode: the same by whatever path or link.
  static Identity identity(const fs::path& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
      fail("cannot look at {}: {}", path.string(), std::generic_category().message(errno));
    return {status.st_dev, status.st_ino};
  }

  void note_again(const fs::path& path) {
    if (again_++ == 0) first_again_ = path;
  }

  void append_once(TextFile file) {
    if (!seen_.insert(identity(file.path)).second) {
      note_again(file.path);
      return;
    }
    file.bytes = static_cast<std::int64_t>(fs::file_size(file.path));
    files_.push_back(std::move(file));
  }

  void append_directory(const fs::path& directory) {
    std::vector<TextFile> found;
    std::set<Identity> entered{identity(directory)};
    search(directory, entered, found);
    if (found.empty()) fail("{} holds no {} file", directory.string(), known_names);
    std::sort(found.begin(), found.end(),
              [](const TextFile& a, const TextFile& b) { return a.path < b.path; });
    for (TextFile& file : found) append_once(std::move(file));
  }

  /// Follows links; `entered` keeps it from entering a directory twice, and so from a cycle.
  void search(const fs::path& directory, std::set<Identity>& entered, std::vector<TextFile>& found) {
    std::error_code error;
    std::vector<fs::path> paths;
    for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
      paths.push_back(at->path());
    if (error) fail("cannot list {}: {}", directory.string(), error.message());
    std::sort(paths.begin(), paths.end());
    for (const fs::path& path : paths) {
      if (path.filename().string().starts_with('.')) {
        if (hidden_++ == 0) first_hidden_ = path;
        continue;
      }
      const fs::file_status status = fs::status(path, error);
      if (status.type() == fs::file_type::not_found && is_link(path)) fail("{}", broken_link(path));
      if (status.type() == fs::file_type::none) fail("{}: {}", path.string(), error.message());
      if (fs::is_directory(status)) {
        if (entered.insert(identity(path)).second) {
          search(path, entered, found);
        } else {
          note_again(path);
        }
      } else if (auto file = file_of_name(path); file && fs::is_regular_file(status)) {
        found.push_back(std::move(*file));
      }
    }
  }

  std::vector<TextFile> files_;
  std::set<Identity> seen_;
  std::int64_t hidden_ = 0;
  fs::path first_hidden_;
  std::int64_t again_ = 0;
  fs::path first_again_;
};

bool is_pattern(const fs::path& input) {
  std::error_code ignored;
  return input.string().find_first_of("*?[") != std::string::npos && !fs::exists(input, ignored);
}

/// The paths that match, sorted.
std::vector<fs::path> match(const fs::path& pattern) {
  if (const auto at = pattern.string().find("**"); at != std::string::npos) {
    const fs::path directory = fs::path(pattern.string().substr(0, at)).parent_path();
    fail(
        "input {}: ** would match one level only; give the directory, {}, which is searched with all below "
        "it",
        pattern.string(), directory.empty() ? "." : directory.string());
  }
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

std::vector<TextFile> list_text_files(const std::vector<fs::path>& inputs, std::vector<std::string>* notes) {
  Listing listing;
  for (const fs::path& input : inputs) {
    if (!is_pattern(input)) {
      listing.append(input);
      continue;
    }
    for (const fs::path& path : match(input)) listing.append(path);
  }
  std::vector<TextFile> files = listing.take_files();
  if (files.empty()) fail("no input; name {} files, or directories or patterns of them", known_names);
  if (notes != nullptr) *notes = listing.notes();
  return files;
}

}  // namespace ratplus::data
