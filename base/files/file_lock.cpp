#include "base/files/file_lock.h"

#include <fcntl.h>

#include <system_error>

#include "base/error.h"
#include "base/files/pending_file.h"

namespace ratplus {

FileLock::FileLock(const std::filesystem::path& file, const std::filesystem::path& place, const char* who,
                   After after) {
  do {
    descriptor_ = Descriptor(file, O_RDWR | O_CREAT);
    if (!descriptor_.ok()) fail_writing(file);
    const auto locked = try_lock(descriptor_.get(), Lock::exclusive);
    if (locked == Locked::unsupported) break;
    if (locked == Locked::held_elsewhere)
      fail("{}: another {} is at work here; wait for it, or write to another place", place.string(), who);
  } while (after == After::remove && !has_name(descriptor_, file));
  if (after == After::remove) removed_ = file;
}

FileLock::~FileLock() {
  std::error_code ignored;
  if (!removed_.empty()) std::filesystem::remove(removed_, ignored);  // while it is locked
}

}  // namespace ratplus
