#include "data/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "data/pending_file.h"
#include "kernels/error.h"

namespace ratplus::data {

namespace {

/// Whether the open file is the one of this name: another process may have removed it between opening and locking.
bool has_name(int descriptor, const std::filesystem::path& file) {
  struct stat open {};
  struct stat named {};
  return ::fstat(descriptor, &open) == 0 && ::stat(file.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& file, const std::filesystem::path& place, const char* who,
                   After after) {
  do {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0)
      fail("cannot write {}: {}{}", file.string(), std::strerror(errno), write_advice(errno));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) break;  // no locks here
      ::close(descriptor_);
      fail("{}: another {} is at work here; wait for it, or write to another place", place.string(), who);
    }
  } while (after == After::remove && !has_name(descriptor_, file));
  if (after == After::remove) removed_ = file;
}

FileLock::~FileLock() {
  std::error_code ignored;
  if (!removed_.empty()) std::filesystem::remove(removed_, ignored);  // while it is locked
  ::close(descriptor_);
}

}  // namespace ratplus::data
