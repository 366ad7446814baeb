#include "base/files/descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ratplus {

Descriptor::Descriptor(const std::filesystem::path& file, int flags)
    : value_(::open(file.c_str(), flags | O_CLOEXEC, 0666)) {}

bool Descriptor::close() {
  return value_ < 0 || ::close(std::exchange(value_, -1)) == 0;
}

bool has_name(const Descriptor& open, const std::filesystem::path& file) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(open.get(), &opened) == 0 && ::stat(file.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace ratplus
