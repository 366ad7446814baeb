#include "base/files/new_directories.h"

#include <system_error>

#include "base/error.h"
#include "base/files/pending_file.h"

namespace ratplus {

namespace fs = std::filesystem;

NewDirectories::NewDirectories(const fs::path& path, const char* key) {
  std::error_code reason;
  for (auto missing = fs::absolute(path).lexically_normal(); !fs::exists(missing, reason);
       missing = missing.parent_path()) {
    if (missing.has_filename()) made_.push_back(missing);
  }
  fs::create_directories(path, reason);
  if (!reason) return;
  undo();
  fail("{}: cannot make this directory{}: {}{}", path.string(), key ? fmt::format(" ({})", key) : "",
       reason.message(), write_advice(reason.value()));
}

void NewDirectories::undo() noexcept {
  std::error_code ignored;  // a directory that something else was put into stays
  for (const auto& directory : made_) fs::remove(directory, ignored);
  made_.clear();
}

}  // namespace ratplus
