#include "data/staged_dataset.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "data/pending_file.h"
#include "kernels/error.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* staging_name = ".staged-dataset";
constexpr const char* lock_name = "lock";

void require_done(const std::error_code& error, const char* what, const fs::path& path) {
  if (error) fail("cannot {} {}: {}{}", what, path.string(), error.message(), write_advice(error.value()));
}

void move_into(const fs::path& from_directory, const fs::path& to_directory, const std::string& name) {
  std::error_code error;
  fs::rename(from_directory / name, to_directory / name, error);
  require_done(error, "write", to_directory / name);
}

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

StagedDataset::StagedDataset(const fs::path& output) : output_(output), staging_(output / staging_name) {
  for (fs::path missing = fs::absolute(output).lexically_normal(); !fs::exists(missing);
       missing = missing.parent_path()) {
    if (missing.has_filename()) made_.push_back(missing);
  }
  std::error_code error;
  fs::create_directories(output_, error);
  require_done(error, "make directory", output_);
  fs::create_directory(staging_, error);
  require_done(error, "make directory", staging_);
  lock_.emplace(staging_ / lock_name, output_, "`ratplus samples` or `ratplus import`");
  for (const auto& left : fs::directory_iterator(staging_)) {  // by a process that was killed
    if (left.path().filename() != lock_name) fs::remove_all(left.path(), error);
  }
}

StagedDataset::~StagedDataset() {
  std::error_code ignored;  // a directory that something else was put into stays
  if (lock_) fs::remove_all(staging_, ignored);
  for (const fs::path& directory : made_) fs::remove(directory, ignored);
}

void StagedDataset::publish(const Manifest& manifest, const fs::path& tokenizer) {
  if (!tokenizer.empty()) stage_tokenizer(tokenizer, manifest.tokenizer_file, staging_, output_);
  publish_dataset(staging_, output_, manifest);
  made_.clear();
}

void publish_dataset(const fs::path& staging, const fs::path& output, const Manifest& manifest) {
  write_manifest(staging, manifest);
  sync_path(staging, output);
  const std::vector<std::string> old = shards_in(output);
  std::error_code error;
  fs::remove(output / manifest_name, error);
  require_done(error, "replace", output / manifest_name);
  std::vector<std::string> names;
  for (const Split split : {Split::train, Split::validation}) {
    for (const ManifestShard& shard : manifest.shards(split)) names.push_back(shard.file);
  }
  for (const std::string& name : names) move_into(staging, output, name);
  for (const std::string& name : old) {
    if (std::find(names.begin(), names.end(), name) == names.end()) fs::remove(output / name, error);
  }
  if (!manifest.tokenizer_file.empty() && fs::exists(staging / manifest.tokenizer_file))
    move_into(staging, output, manifest.tokenizer_file);
  sync_path(output);
  move_into(staging, output, manifest_name);
  sync_path(output);
}

void stage_tokenizer(const fs::path& tokenizer, const std::string& name, const fs::path& staging,
                     const fs::path& output) {
  std::error_code missing;
  if (!fs::equivalent(tokenizer, output / name, missing))
    write_whole_file(staging / name, read_whole_file(tokenizer), output / name);
}

void check_replaceable(const fs::path& output, const std::string& tokenizer_name, const fs::path& tokenizer,
                       bool force) {
  if (force) return;
  if (fs::exists(output / manifest_name)) {
    fail("{} already holds a dataset; replace it with --force, or choose another --output", output.string());
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
