#include "base/resident_memory.h"

#include <unistd.h>

#include <fstream>

namespace ratplus {

std::int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");  // pages: all, resident, ...
  std::int64_t all = 0, resident = 0;
  if (!(statm >> all >> resident)) return -1;
  return resident * ::sysconf(_SC_PAGESIZE);
}

}  // namespace ratplus
