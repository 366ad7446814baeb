#include "data/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "data/pending_file.h"
#include "kernels/error.h"

namespace ratplus::data {

FileLock::FileLock(const std::filesystem::path& file, const std::filesystem::path& place, const char* who)
    : descriptor_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0)
    fail("cannot write {}: {}{}", file.string(), std::strerror(errno), write_advice(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(descriptor_);
  fail("{}: another {} is at work here; wait for it, or choose another --output", place.string(), who);
}

FileLock::~FileLock() {
  ::close(descriptor_);
}

}  // namespace ratplus::data
