#include "data/descriptor.h"

#include <fcntl.h>
#include <unistd.h>

namespace ratplus::data {

Descriptor::Descriptor(const std::filesystem::path& file, int flags)
    : value_(::open(file.c_str(), flags | O_CLOEXEC, 0666)) {}

bool Descriptor::close() {
  return value_ < 0 || ::close(std::exchange(value_, -1)) == 0;
}

}  // namespace ratplus::data
