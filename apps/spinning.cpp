#include "apps/spinning.h"

#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

extern "C" void _start();  // where the kernel enters a program

namespace ratplus::apps {
namespace {

constexpr const char* proc_name = "/proc/self/exe";

/// Whether the kernel has started this program itself: not where a loader, an emulator or a checker of memory was
/// started with the program's name, whose file /proc/self/exe then is.
bool started_by_kernel() {
  return getauxval(AT_ENTRY) == reinterpret_cast<std::uintptr_t>(&_start);
}

/// The program's file by its own name, by which ps and top show it; by that of /proc where it lies there no more.
std::string program_file() {
  std::error_code error;
  const std::string name = std::filesystem::read_symlink(proc_name, error).string();
  struct stat mine {
  }, named{};
  const bool same = !error && ::stat(proc_name, &mine) == 0 && ::stat(name.c_str(), &named) == 0 &&
                    mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
  return same ? name : proc_name;
}

}  // namespace

void shorten_spinning(char** argv) {
  for (const char* set : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}) {
    if (std::getenv(set) != nullptr) return;  // by the user, or by the execution before this one
  }
  if (!started_by_kernel() || setenv("GOMP_SPINCOUNT", "1000", 1) != 0) return;
  execv(program_file().c_str(), argv);
}

}  // namespace ratplus::apps
