#include "data/dataset/staged_dataset.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* staging_name = ".staged-dataset";
constexpr const char* lock_name = ".dataset.lock";
/// In the directory of the files that are being replaced, once all of them are there: the names of the files that come into their
/// place, a line each, which an undoing removes.
constexpr const char* coming_name = "coming.txt";

void require_done(const std::error_code& error, const char* what, const fs::path& path) {
  if (error) fail("cannot {} {}: {}{}", what, path.string(), error.message(), write_advice(error.value()));
}

/// Renames that are undone, the last first, unless they are kept.
class Moves {
 public:
  Moves() = default;
  ~Moves() {
    std::error_code ignored;
    for (auto move = done_.rbegin(); move != done_.rend(); ++move) fs::rename(move->to, move->from, ignored);
  }
  Moves(const Moves&) = delete;
  Moves& operator=(const Moves&) = delete;

  /// Throws Error where a directory has the new name.
  void move(const fs::path& from_directory, const fs::path& to_directory, const std::string& name,
            const fs::path& shown_as) {
    std::error_code error;
    error = rename_path(from_directory / name, to_directory / name);
    require_done(error, "write", shown_as);
    done_.push_back({from_directory / name, to_directory / name});
  }
  void keep() { done_.clear(); }

 private:
  struct Move {
    fs::path from, to;
  };
  std::vector<Move> done_;
};

/// The shards that the manifest in `directory` names there; none where it is damaged or missing.
std::vector<std::string> shards_in(const fs::path& directory) {
  std::vector<std::string> names;
  if (!fs::exists(directory / manifest_name)) return names;
  try {
    const Manifest manifest = read_manifest(directory);
    for (const Split split : {Split::train, Split::validation}) {
      for (const ManifestShard& shard : manifest.shards(split)) {
        // A name with directories is somebody else's: it is not removed with this dataset.
        if (fs::path(shard.file).filename() == shard.file) names.push_back(shard.file);
      }
    }
  } catch (const Error&) {
    // The shards of a damaged dataset are not known, but those of the new one take their names.
  }
  return names;
}

bool has_shard_name(const std::string& name) {
  for (const Split split : {Split::train, Split::validation}) {
    const std::string first = shard_name(split, 0);  // "train-00000.h5"
    const std::string begin = first.substr(0, first.find('0'));
    const std::string end = first.substr(first.rfind('0') + 1);
    if (name.size() < first.size() || !name.starts_with(begin) || !name.ends_with(end)) continue;
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    if (std::all_of(name.begin() + std::ssize(begin), name.end() - std::ssize(end), is_digit)) return true;
  }
  return false;
}

}  // namespace

StagedDataset::StagedDataset(const fs::path& output)
    : output_(output), staging_(output / staging_name), made_(output) {
  lock_.emplace(lock_output(output_));
  std::error_code error;
  fs::remove_all(staging_, error);  // by a process that was killed
  fs::create_directory(staging_, error);
  require_done(error, "make directory", staging_);
}

StagedDataset::~StagedDataset() {
  std::error_code ignored;
  if (lock_) fs::remove_all(staging_, ignored);
  lock_.reset();  // its file would keep the directory
}

void StagedDataset::publish(const Manifest& manifest, const fs::path& tokenizer) {
  if (!tokenizer.empty()) stage_tokenizer(tokenizer, manifest, staging_, output_);
  publish_dataset(staging_, output_, manifest);
  made_.keep();
}

FileLock lock_output(const fs::path& output) {
  return FileLock(output / lock_name, output, "`ratplus prepare`, `samples` or `import`",
                  FileLock::After::remove);
}

bool publication_interrupted(const fs::path& output) {
  std::error_code ignored;
  return fs::exists(output / replaced_dataset_name / manifest_name, ignored);
}

void undo_interrupted_publication(const fs::path& output) {
  std::error_code error;
  const fs::path aside = output / replaced_dataset_name;
  if (!fs::exists(aside, error)) return;
  const FileLock lock = lock_output(output);
  // Without an old manifest, a manifest in the output is the new one, and all files are in place.
  if (publication_interrupted(output) || !fs::exists(output / manifest_name)) {
    if (fs::exists(aside / coming_name)) {
      std::istringstream coming(read_whole_file(aside / coming_name));
      for (std::string name; std::getline(coming, name);) fs::remove(output / name, error);
      sync_path(output);
      // From here on what has one of these names was put back.
      fs::remove(aside / coming_name, error);
      require_done(error, "remove", aside / coming_name);
      sync_path(aside);
    }
    // The manifest comes last: until then the dataset counts as interrupted.
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(aside)) {
      const std::string name = file.path().filename().string();
      if (!file.is_directory() && name != manifest_name) names.push_back(name);
    }
    if (publication_interrupted(output)) names.emplace_back(manifest_name);
    for (const std::string& name : names) {
      fs::rename(aside / name, output / name, error);
      require_done(error, "put back", output / name);
    }
    sync_path(output);
  }
  fs::remove_all(aside, error);
}

void publish_dataset(const fs::path& staging, const fs::path& output, const Manifest& manifest) {
  write_manifest(staging, manifest);
  sync_path(staging, output);
  std::vector<std::string> names;
  for (const Split split : {Split::train, Split::validation}) {
    for (const ManifestShard& shard : manifest.shards(split)) names.push_back(shard.file);
  }
  if (!manifest.tokenizer_file.empty() && fs::exists(staging / manifest.tokenizer_file))
    names.push_back(manifest.tokenizer_file);
  names.emplace_back(manifest_name);
  std::vector<std::string> old = shards_in(output);
  old.insert(old.end(), names.begin(), names.end());
  std::ranges::sort(old);
  old.erase(std::unique(old.begin(), old.end()), old.end());
  std::erase_if(old, [&](const std::string& name) { return !fs::exists(output / name); });
  for (const std::string& name : old) {
    if (fs::is_directory(output / name))
      fail(
          "{} is a directory, and a file of this name is to be written; remove it, or choose another "
          "--output",
          (output / name).string());
  }
  const fs::path aside = output / replaced_dataset_name;
  std::error_code error;
  fs::create_directory(aside, error);
  require_done(error, "make directory", aside);
  try {
    Moves moves;
    // The manifest goes first: a reader refuses a directory without it.
    std::stable_partition(old.begin(), old.end(),
                          [](const std::string& name) { return name == manifest_name; });
    for (const std::string& name : old) moves.move(output, aside, name, output / name);
    sync_path(aside);
    write_whole_file(aside / coming_name, fmt::format("{}\n", fmt::join(names, "\n")));
    for (const std::string& name : names) {
      if (name == names.back()) sync_path(output);
      moves.move(staging, output, name, output / name);
    }
    sync_path(output);
    moves.keep();
  } catch (...) {  // what was moved is back
    fs::remove(aside / coming_name, error);
    fs::remove(aside, error);
    throw;
  }
  fs::remove(aside / manifest_name, error);  // from here on nothing is put back
  fs::remove(aside / coming_name, error);    // nor removed
  fs::remove_all(aside, error);
}

void require_copyable(const fs::path& tokenizer) {
  std::error_code ignored;
  // What is missing, or a directory, is said by whoever reads it.
  const auto status = fs::status(tokenizer, ignored);
  if (!fs::exists(status) || fs::is_regular_file(status) || fs::is_directory(status)) return;
  fail(
      "--tokenizer {}: is a pipe or a device, and the dataset is to get a copy of the tokenizer; write it "
      "to a file, and give that",
      tokenizer.string());
}

void stage_tokenizer(const fs::path& tokenizer, const Manifest& manifest, const fs::path& staging,
                     const fs::path& output) {
  const std::string bytes = read_whole_file(tokenizer);
  if (!manifest.tokenizer.ends_with(sha256_hex(bytes))) {
    fail("{}: was changed meanwhile, and the tokens are of the tokenizer that it was; run the command again",
         tokenizer.string());
  }
  const fs::path there = output / manifest.tokenizer_file;
  std::error_code missing;
  if (!fs::equivalent(tokenizer, there, missing))
    write_whole_file(staging / manifest.tokenizer_file, bytes, there);
}

void check_replaceable(const fs::path& output, const std::string& tokenizer_name, const fs::path& tokenizer,
                       bool force) {
  undo_interrupted_publication(output);
  if (force) return;
  if (fs::exists(output / manifest_name)) {
    fail("{} already holds a dataset; replace it with --force, or choose another --output", output.string());
  }
  std::error_code missing;
  for (const auto& file : fs::directory_iterator(output, missing)) {
    if (!has_shard_name(file.path().filename().string()) || file.is_directory(missing)) continue;
    fail(
        "{} has the name of a shard, which the dataset would replace, and no {} beside it names it; move it "
        "away, replace it with --force, or choose another --output",
        file.path().string(), manifest_name);
  }
  const fs::path there = output / tokenizer_name;
  if (tokenizer_name.empty() || !fs::is_regular_file(there)) return;
  if (read_whole_file(there) == read_whole_file(tokenizer)) return;
  fail(
      "{} would be replaced by {}, which is another tokenizer; do so with --force, or choose another "
      "--output",
      there.string(), tokenizer.string());
}

void refuse_inputs_in(const fs::path& output, const std::vector<fs::path>& inputs) {
  std::error_code missing;
  const fs::path directory = fs::canonical(output, missing);
  if (missing) return;
  for (const fs::path& input : inputs) {
    const fs::path file = fs::canonical(input, missing);
    if (missing || file.parent_path() != directory || !has_shard_name(file.filename().string())) continue;
    fail(
        "{} is an input, and has the name of a shard of the dataset that --output {} would replace; choose "
        "another --output",
        input.string(), output.string());
  }
}

}  // namespace ratplus::data
