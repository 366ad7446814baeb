// Interrupted: work of a command that ends where its progress is reported, because a signal asked for it, and its status.
#pragma once

#include <stdexcept>

#include "base/stop_signal.h"

namespace ratplus::apps {

/// No Error, which code between may take for a fault of a file. What it says is printed as an error's.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Interrupted with this text if a StopSignal that lives has received one.
inline void end_if_interrupted(const char* text) {
  if (StopSignal::received() != 0) throw Interrupted(text);
}

/// The status that a shell gives to a program that a signal ended.
constexpr int ended_by(int signal) {
  return 128 + signal;
}

}  // namespace ratplus::apps
