#include "apps/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>

namespace ratplus::apps {
namespace {

bool output_is_closed = false;
bool output_is_forgotten = false;

}  // namespace

void print_error(const std::string& message, const std::string& command) noexcept {
  const std::string who = command.empty() ? "ratplus" : "ratplus " + command;
  std::fputs((who + ": " + message + "\n").c_str(), stderr);
  std::fflush(stderr);
}

void open_standard_streams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0) continue;
    if (descriptor == STDOUT_FILENO) output_is_closed = true;
    // The lowest number that is free is this one. A write to /dev/full fails as one to a closed descriptor does.
    const char* instead = descriptor == STDOUT_FILENO ? "/dev/full" : "/dev/null";
    if (::open(instead, descriptor == STDIN_FILENO ? O_RDONLY : O_WRONLY) < 0) return;
  }
}

int check_output(int status) {
  std::cout.flush();
  errno = 0;
  const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && !std::cout.fail();
  if (written || output_is_forgotten) return status;
  print_error(output_is_closed ? "the output cannot be written: it is closed"
              : errno == ENOSPC
                  ? "the output cannot be written: no space is left; free some, or send it elsewhere"
                  : "the output cannot be written, or not all of it");
  return status == 0 ? 1 : status;
}

void forget_output() {
  output_is_forgotten = true;
}

}  // namespace ratplus::apps
