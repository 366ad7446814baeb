#include "lib/checkpoint/pending_directory.h"

#include <fcntl.h>

#include <cstdio>

#include "base/error.h"
#include "base/files/pending_file.h"

namespace ratplus::checkpoint {
namespace {

namespace fs = std::filesystem;

/// For the functions of std::filesystem that report so.
void require_written(const std::error_code& reason, const fs::path& directory) {
  if (!reason) return;
  fail("cannot write {}: {}{}", directory.string(), reason.message(), write_advice(reason.value()));
}

}  // namespace

fs::path PendingDirectory::partial_of(fs::path final_name) {
  // "runs/a/" is "runs/a".
  if (!final_name.has_filename()) final_name = final_name.parent_path();
  return final_name += ".partial";
}

PendingDirectory::PendingDirectory(fs::path final_name)
    : final_(std::move(final_name)), partial_(partial_of(final_)) {
  make_empty(partial_, final_);
}

void PendingDirectory::make_empty(const fs::path& partial, const fs::path& final_name) {
  std::error_code reason;
  fs::remove_all(partial, reason);
  if (!reason) fs::create_directories(partial, reason);
  require_written(reason, final_name);
}

PendingDirectory::~PendingDirectory() {
  std::error_code ignored;
  if (!partial_.empty()) fs::remove_all(partial_, ignored);
}

void PendingDirectory::commit() {
  sync_path(partial_, final_);
  const fs::path complete = partial_;
  put_in_place(complete, final_);
  partial_.clear();
  const auto parent = final_.has_filename() ? final_.parent_path() : final_.parent_path().parent_path();
  sync_path(parent.empty() ? "." : parent, final_);
}

void put_in_place(const fs::path& complete, const fs::path& final_name) {
  std::error_code reason;
  const fs::path from = complete.has_filename() ? complete : complete.parent_path();
  const fs::path to = final_name.has_filename() ? final_name : final_name.parent_path();
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(from, reason);  // what was replaced
    return;
  }
  if (!fs::exists(fs::symlink_status(to))) {
    reason = rename_path(from, to);
    return require_written(reason, final_name);
  }
  fs::path replaced = to;
  replaced += ".replaced";
  fs::remove_all(replaced, reason);  // of one that was killed here; there is a complete one in its place
  reason = rename_path(to, replaced);
  require_written(reason, final_name);
  reason = rename_path(from, to);
  if (reason) {
    std::error_code ignored;
    fs::rename(replaced, to, ignored);
  }
  require_written(reason, final_name);
  fs::remove_all(replaced, reason);
}

}  // namespace ratplus::checkpoint
