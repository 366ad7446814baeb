#include "data/output_files.h"

#include <optional>
#include <system_error>
#include <utility>

#include "data/manifest.h"
#include "data/pending_file.h"
#include "kernels/error.h"

namespace ratplus::data {

namespace fs = std::filesystem;

OutputFiles::~OutputFiles() {
  std::error_code ignored;  // a directory that something else was put into stays
  for (const fs::path& file : files_) fs::remove(file, ignored);
  for (const fs::path& directory : directories_) fs::remove(directory, ignored);
}

const fs::path& OutputFiles::add(fs::path file) {
  return files_.emplace_back(std::move(file));
}

void OutputFiles::make_directory(const fs::path& directory) {
  for (fs::path missing = fs::absolute(directory).lexically_normal(); !fs::exists(missing);
       missing = missing.parent_path()) {
    if (missing.has_filename()) directories_.push_back(missing);
  }
  std::error_code error;
  fs::create_directories(directory, error);
  if (error)
    fail("cannot make directory {}: {}{}", directory.string(), error.message(), write_advice(error.value()));
}

void OutputFiles::keep() {
  files_.clear();
  directories_.clear();
}

void remove_dataset(const fs::path& directory) {
  if (!fs::exists(directory / manifest_name)) return;
  std::optional<Manifest> manifest;
  try {
    manifest = read_manifest(directory);
  } catch (const Error&) {
    // Damaged: its shards are not known, but those of the new dataset take their names.
  }
  fs::remove(directory / manifest_name);
  if (!manifest) return;
  for (const Split split : {Split::train, Split::validation}) {
    for (const ManifestShard& shard : manifest->shards(split)) fs::remove(directory / shard.file);
  }
}

}  // namespace ratplus::data
