#include "base/files/descriptor.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace ratplus {

Descriptor::Descriptor(const std::filesystem::path& file, int flags)
    : value_(::open(file.c_str(), flags | O_CLOEXEC, 0666)) {}

bool Descriptor::close() {
  return value_ < 0 || ::close(std::exchange(value_, -1)) == 0;
}

std::size_t write_fully(const Descriptor& out, std::string_view bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written = ::write(out.get(), bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) break;
    done += static_cast<std::size_t>(written);
  }
  return done;
}

Locked try_lock(int descriptor, Lock lock) {
  const int kind = lock == Lock::shared ? LOCK_SH : LOCK_EX;
  if (::flock(descriptor, kind | LOCK_NB) == 0) return Locked::yes;
  return errno == EWOULDBLOCK ? Locked::held_elsewhere : Locked::unsupported;
}

bool has_name(const Descriptor& open, const std::filesystem::path& file) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(open.get(), &opened) == 0 && ::stat(file.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace ratplus
