#include "lib/checkpoint/pending_directory.h"

#include "data/pending_file.h"
#include "kernels/error.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;

/// For the functions of std::filesystem that report so.
void require_written(const std::error_code& reason, const fs::path& directory) {
  if (!reason) return;
  fail("cannot write {}: {}{}", directory.string(), reason.message(), data::write_advice(reason.value()));
}

}  // namespace

fs::path PendingDirectory::partial_of(fs::path final_name) {
  // "runs/a/" is "runs/a".
  if (!final_name.has_filename()) final_name = final_name.parent_path();
  return final_name += ".partial";
}

PendingDirectory::PendingDirectory(fs::path final_name)
    : final_(std::move(final_name)), partial_(partial_of(final_)) {
  std::error_code reason;
  fs::remove_all(partial_, reason);
  if (!reason) fs::create_directories(partial_, reason);
  require_written(reason, final_);
}

PendingDirectory::~PendingDirectory() {
  std::error_code ignored;
  if (!partial_.empty()) fs::remove_all(partial_, ignored);
}

void PendingDirectory::commit() {
  data::sync_path(partial_, final_);
  std::error_code reason;
  fs::path replaced = partial_of(final_);
  replaced.replace_extension(".replaced");
  if (fs::exists(final_)) fs::rename(final_, replaced, reason);
  if (!reason) fs::rename(partial_, final_, reason);
  require_written(reason, final_);
  partial_.clear();
  const auto parent = final_.has_filename() ? final_.parent_path() : final_.parent_path().parent_path();
  data::sync_path(parent.empty() ? "." : parent, final_);
  fs::remove_all(replaced, reason);
}

}  // namespace ratplus::checkpoint
